"""The command line: what it prints, what it refuses, how it exits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError, DeadlineError, EngineError, LearnerError
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from launch.border import border
from launch.commands import keys
from launch.run import shipped_configs, sweep_plan
from tests.conftest import one_line
from tests.fakes.model_folder import write_model_folder
from tests.fakes.worlds import SESSION, changed

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "train",
    "evaluate",
    "data",
    "demonstrate",
    "report",
    "frontier",
    "show",
    "replay",
    "reprice",
    "model",
    "submit",
    "sweep",
    "study",
    "keys",
)


@pytest.fixture
def model(tmp_path):
    return write_model_folder(tmp_path / "model")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rollout.actor=1", "unknown key rollout.actor; the nearest known one is rollout.actors"),
        ("rollout.actors=0", "rollout.actors"),
        ("env.advice_cost=1.5", "env.advice_cost"),
        ("env.advice_cost=-0.1", "env.advice_cost"),
        ("env.name=sohp", "found sohp; did you mean shop?"),
        ("run.name=a/b", "run.name"),
        ("seed", "overrides are written key=value"),
    ],
)
def test_train_refuses_a_bad_config_in_one_line(call, tmp_path, model, override, said):
    runs = tmp_path / "runs"
    code, _, err = call("train", "quickstart", f"run.folder={runs}", f"model.path={model}", override)
    assert code == 2
    assert said in one_line(err)
    assert not runs.exists()


def test_train_refuses_an_absent_model_and_says_how_to_make_one(call, tmp_path):
    code, _, err = call("train", "quickstart", f"run.folder={tmp_path / 'runs'}", f"model.path={tmp_path / 'none'}")
    assert code == 2
    assert f"agile-ray model tiny --config CONFIG --output {tmp_path / 'none'}" in one_line(err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_train_refuses_an_incomplete_model(call, tmp_path, model, file):
    (model / file).unlink()
    code, _, err = call("train", "quickstart", f"run.folder={tmp_path / 'runs'}", f"model.path={model}")
    assert code == 2
    assert file.removeprefix("model") in one_line(err)


def test_train_refuses_a_model_without_function_tokens_and_says_how_to_add_them(call, tmp_path, model):
    (model / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "<bos>", "special": True}]}))
    code, _, err = call("train", "quickstart", f"run.folder={tmp_path / 'runs'}", f"model.path={model}")
    assert code == 2
    assert (
        f"lacks 10 of 10 function tokens ([GetQuestion], ...); add them with `agile-ray model from {model}"
        in one_line(err)
    )


def test_train_refuses_a_full_disk(call, tmp_path, model, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    free = {"/dev/shm": 1 << 30}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free.get(str(path), 1 << 20)))
    code, _, err = call("train", "quickstart", f"run.folder={tmp_path / 'runs'}", f"model.path={model}")
    assert code == 2
    assert "has 1 MiB free" in one_line(err)
    assert not (tmp_path / "runs").exists()


def test_train_on_a_cluster_refuses_relative_paths(call, monkeypatch, model):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    code, _, err = call("train", "quickstart", f"model.path={model}")
    assert code == 2
    assert "run.folder=runs: on a cluster a path must be absolute" in one_line(err)


@pytest.mark.parametrize("name", ["quikstart", "configs/none.yaml"])
def test_an_unknown_config_is_refused_with_the_shipped_names(call, name):
    code, _, err = call("train", name)
    assert code == 2
    assert "quickstart" in one_line(err)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("a\n b"), 2, "agile-ray: a b\n"),
        (DeadlineError("slow"), 1, "agile-ray: slow\n"),
        (OSError(28, "No space left on device", "/full"), 2, "agile-ray: /full: no space left"),
        (
            OSError(30, "Read-only file system", "/ro"),
            2,
            "agile-ray: /ro: the disk can't be used (Read-only file system)",
        ),
        (
            LearnerError("save: OSError: [Errno 122] Disk quota exceeded: 'x'"),
            2,
            "agile-ray: save: OSError: [Errno 122]",
        ),
        (
            EngineError("actor 1: OSError: [Errno 28] No space left on device"),
            2,
            "agile-ray: actor 1: OSError: [Errno 28]",
        ),
    ],
)
def test_the_border_turns_an_expected_error_into_one_line(capsys, error, code, said):
    with pytest.raises(SystemExit) as end, border():
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err.startswith(said)


def test_the_border_keeps_the_traceback_of_an_unexpected_error():
    with pytest.raises(ZeroDivisionError), border():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "words", [(), *((command,) for command in COMMANDS), ("model", "tiny"), ("study", "shop")], ids=" ".join
)
def test_help_shows_usage_and_examples(call, words):
    code, out, _ = call(*words, "-h")
    assert code == 0
    assert "Usage: agile-ray" in out
    assert words in {("model",), ("study",)} or "agile-ray " in out.partition("Usage")[2][1:]


def in_fresh_process(*words, cwd=ROOT):
    """Run the command line in its own process, then print the heavy libraries that it has loaded."""
    code = (
        "import sys\nfrom launch.main import main\nsys.argv = ['agile-ray', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print('heavy:', *sorted({'torch', 'ray', 'vllm', 'deepspeed', 'transformers'} & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    words = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=110, check=False, cwd=cwd)


def test_a_reference_policy_needs_neither_torch_nor_ray(tmp_path):
    done = in_fresh_process(
        "evaluate", "quickstart", "--policy", "oracle", "-o", tmp_path / "o.json", "evaluate.sessions=48", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_a_refused_training_has_not_started_ray(tmp_path):
    done = in_fresh_process("train", "quickstart", "rollout.actors=0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert list(tmp_path.iterdir()) == []


def evaluate(call, folder, policy, *words):
    code, out, err = call("evaluate", "quickstart", "--policy", policy, "-o", folder / "e.json", *words)
    assert code == 0, err
    return json.loads((folder / "e.json").read_text()), out


def test_evaluate_writes_what_it_prints(call, tmp_path):
    metrics, out = evaluate(call, tmp_path, "always_ask", "evaluate.sessions=96", "env.advice_cost=0.4")
    assert metrics["policy"] == "always_ask"
    assert (metrics["env"], metrics["split"], metrics["seed"], metrics["advice_cost"]) == ("shop", "test", 0, 0.4)
    assert (metrics["sessions"], metrics["asked_share"], metrics["asks_per_session"]) == (96, 1.0, 1.0)
    assert (metrics["accuracy"], metrics["total_score"], metrics["ci95"]) == (1.0, 0.6, [0.6, 0.6])
    assert sum(kind["sessions"] for kind in metrics["kinds"].values()) == 96
    assert "total score 0.6000 [0.6000, 0.6000]" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.json"]


def test_a_reference_plays_with_the_tokenizer_of_the_configs_model(call, tmp_path, model):
    words, none = ("evaluate.sessions=48", "agent.session_tokens=120"), tmp_path / "none"
    alone, out = evaluate(call, tmp_path, "never_ask", *words, f"model.path={none}")
    said = f"model.path: no folder {none}, so tokens are words; agent.session_tokens counts words"
    assert out.splitlines()[-1] == said
    assert "cut" not in alone["endings"]
    (model / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    like_run, out = evaluate(call, tmp_path, "never_ask", *words, f"model.path={model}")
    assert "tokens are words" not in out
    assert like_run["endings"]["cut"] > 0  # the model's tokens are shorter than words


def test_a_reference_asks_the_configs_expert(call, tmp_path):
    asked = changed(SESSION, stream="shop/x/test/0/0", question_id="q1", correct=True)
    store.write(RunFolder(tmp_path / "run"), 1, [asked], [])
    code, _, err = call(
        "evaluate",
        "quickstart",
        "--policy",
        "always_ask",
        "evaluate.sessions=48",
        f"env.expert=recorded:{tmp_path / 'run'}",
    )
    assert code == 1
    assert "48 of 48" in one_line(err)
    assert "has no receipt for the question" in one_line(err)


def test_evaluate_twice_gives_the_same_metrics(call, tmp_path):
    first, _ = evaluate(call, tmp_path, "random", "evaluate.sessions=96")
    assert evaluate(call, tmp_path, "random", "evaluate.sessions=96")[0] == first


def test_random_asks_in_the_given_share_of_sessions(call, tmp_path):
    seldom, _ = evaluate(call, tmp_path, "random", "--share", "0.1", "evaluate.sessions=480")
    often, _ = evaluate(call, tmp_path, "random", "--share", "0.9", "evaluate.sessions=480")
    assert seldom["asked_share"] == pytest.approx(0.1, abs=0.05)
    assert often["asked_share"] == pytest.approx(0.9, abs=0.05)


def test_non_adaptive_asks_in_the_first_sessions_of_each_stream(call, tmp_path):
    metrics, _ = evaluate(call, tmp_path, "non_adaptive", "--first", "12", "evaluate.sessions=96")
    assert metrics["asked_share"] == 12 / 48


def test_evaluate_plays_the_given_split_and_number_of_sessions(call, tmp_path):
    metrics, out = evaluate(call, tmp_path, "never_ask", "--split", "validation", "evaluate.sessions=48")
    assert (metrics["split"], metrics["sessions"]) == ("validation", 48)
    assert "shop/validation" in out


def test_the_first_documented_evaluation_works_as_it_stands(call, tmp_path):
    metrics, _ = evaluate(call, tmp_path, "oracle")
    assert (metrics["split"], metrics["sessions"]) == ("test", 1536)


def test_evaluate_passes_categories_of_its_split_to_the_environment(call):
    code, _, err = call("evaluate", "quickstart", "--policy", "oracle", "--categories", "a,b", "--split", "train")
    assert code == 2
    assert "env.categories: shop draws its own, found {'train': ('a', 'b')}" in one_line(err)


def test_evaluate_names_the_option_and_not_a_key_where_a_folder_is_no_checkpoint(call, tmp_path):
    code, _, err = call("evaluate", "quickstart", "--policy", tmp_path)
    assert (code, err) == (
        2,
        f"agile-ray: --policy: {tmp_path} has no config.json; a Hugging Face folder with a fast tokenizer is needed\n",
    )
    RunFolder(tmp_path).config.write_text("seed: 0\n")
    code, _, err = call("evaluate", "quickstart", "--policy", tmp_path)
    assert code == 2
    assert f"found the folder of a run; name {tmp_path}/sft or one in {tmp_path}/checkpoints" in err


def test_evaluate_refuses_an_unknown_policy_with_the_known_ones(call):
    code, _, err = call("evaluate", "quickstart", "--policy", "guess")
    assert code == 2
    assert "reference policies are always_ask, always_colleague, never_ask" in one_line(err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policy", "oracel"), "did you mean oracle?"),
        (
            ("--policy", "oracle", "--share", "0.5"),
            "--share: only random, teacher, non_adaptive and own_non_adaptive take it",
        ),
        (
            ("--policy", "teacher", "--first", "3"),
            "--first: only non_adaptive and own_non_adaptive take it, found --policy teacher",
        ),
        (("--policy", "non_adaptive", "--first", "3", "--share", "0.5"), "give one of the two"),
        (
            ("--policy", "own_answer"),
            "--checkpoint: ask_unless_own_search, own_non_adaptive, own_answer need the folder",
        ),
        (("--policy", "oracle", "--checkpoint", "/tmp"), "and nothing else takes it; found --policy oracle"),
        (("--policy", "own_answer", "--checkpoint", "/tmp/none here"), "--checkpoint /tmp/none here: no such folder"),
        (("--policy", "teacher", "--share", "0.5", "imitation.asking=judgement"), "this teacher asks by judgement"),
        (("--policy", "random", "--output", "/proc/none/e.json"), "--output: /proc/none/e.json can't be written"),
        (("--policy", "random", "--output", "/tmp/" + "y" * 256), "--output: a name has at most 255 bytes, found 256"),
        (("--policy", "y" * 300), "the name is too long"),
    ],
)
def test_evaluate_refuses_what_it_would_ignore_or_lose_before_it_plays(call, words, said):
    code, out, err = call("evaluate", "quickstart", *words, "evaluate.sessions=48")
    assert (code, out) == (2, "")
    assert said in one_line(err)


def test_evaluate_writes_a_name_of_255_letters_below_the_home_folder(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = "y" * 250 + ".json"
    words = ("--policy", "never_ask", f"--output=~/new/{name}", "evaluate.sessions=48")
    assert call("evaluate", "quickstart", *words)[0] == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_train_names_an_unknown_environment_before_a_missing_model(call, tmp_path):
    code, _, err = call("train", "quickstart", "env.name=chess", f"model.path={tmp_path / 'none'}")
    assert code == 2
    assert one_line(err).startswith("agile-ray: env.name: one of ")


@pytest.mark.parametrize("name", ["[a]", "b*", "c?"])
def test_train_refuses_a_model_whose_path_vllm_would_take_for_a_pattern(call, tmp_path, model, name):
    model.rename(tmp_path / name)
    code, _, err = call("train", "quickstart", f"run.folder={tmp_path / 'runs'}", f"model.path={tmp_path / name}")
    assert code == 2
    assert "vLLM takes the characters [ ] * ? in a path for patterns" in one_line(err)


@pytest.mark.parametrize("name", ["mine.YAML", "~/mine.yml"])
def test_a_config_is_found_by_any_path(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / name.removeprefix("~/")).write_text("base: quickstart\nseed: 5\n")
    assert shipped_configs.read(name).seed == 5


def test_evaluate_refuses_an_output_that_is_a_folder(call, tmp_path):
    code, _, err = call("evaluate", "quickstart", "--policy", "never_ask", "-o", tmp_path, "evaluate.sessions=48")
    assert code == 2
    assert str(tmp_path) in one_line(err)


DATA = Path(os.environ.get("AGILE_DATA", ROOT / "data")).resolve() / "productqa"


@pytest.mark.data
@pytest.mark.parametrize("category", ["all_pans"])
def test_evaluate_plays_every_question_of_the_given_categories(call, tmp_path, category):
    rows = [json.loads(line) for line in (DATA / "test" / category / "qa.jsonl").open()]
    words = (
        "--policy",
        "ask_unless_search",
        "-o",
        tmp_path / "e.json",
        f"env.data={DATA}",
        "--categories",
        category,
        "evaluate.sessions=null",
        "memory.embedder=hashed",  # asks do not depend on it, and it is faster
    )
    code, _, err = call("evaluate", "productqa", *words)
    assert code == 0, err
    metrics = json.loads((tmp_path / "e.json").read_text())
    asked = sum(row["type"] != "search_qa" for row in rows)
    assert (metrics["categories"], metrics["sessions"]) == ([category], len(rows))
    assert metrics["asked_share"] == asked / len(rows)
    assert metrics["total_score"] == pytest.approx(1 - 0.3 * asked / len(rows), abs=0.005)  # gold SQL finds nearly all


@pytest.mark.parametrize("name", sorted(shipped_configs.shipped_in()))
def test_every_shipped_config_loads(name):
    assert isinstance(shipped_configs.read(name), RunConfig)


@pytest.mark.parametrize("name", sorted(shipped_configs.shipped_in(shipped_configs.SWEEPS)))
def test_every_shipped_sweep_loads(name):
    path = shipped_configs.find(name, folder=shipped_configs.SWEEPS)
    assert sweep_plan.plan(path, sweep_plan.read_plan(path))


def test_the_documented_keys_are_those_of_the_schema():
    assert keys.table() in (ROOT / "docs" / "configuration.md").read_text(), (
        "put into docs/configuration.md what `agile-ray keys` prints"
    )
