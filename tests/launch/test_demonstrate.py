"""`agile-ray demonstrate`: a script's sessions, and those that a chat model plays right."""

import json
import re

import pytest

from agile_ray.config import RunConfig
from agile_ray.scripted.demonstration_file import sessions_of
from envs.endpoints import chat as module
from launch.commands.specs.plan_text import show_batches
from launch.plan.batches import batches
from launch.plan.lengths import longest
from launch.run import pipeline, shipped_configs
from launch.validate.spec import Target, check_spec
from tests.conftest import one_line
from tests.fakes.endpoint import Reply, serving
from tests.fakes.model_folder import write_model_folder

WORDS = ("demonstrate", "toy/three_prices", "model.path=/none")


def says(asked):
    """Asks where memory is silent, else answers yes, which is right at every second item."""
    calls = re.findall(r"\[(\w+)\]", asked.shown)
    if calls[-1] == "SeekAdvice":
        return Reply(said="[Reflection] no information [UpdateMemory] [SubmitAnswer]")
    return Reply(said="[SeekAdvice]" if "history : none" in asked.shown else "[PredictAnswer] yes")


def test_a_script_and_a_model_demonstrate_and_what_is_there_is_not_paid_again(call, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    script, right = tmp_path / "script.jsonl", tmp_path / "right.jsonl"
    code, out, err = call(*WORDS, "--policy", "teacher", "--sessions", 40, "--output", script)
    assert (code, err, out) == (0, "", f"{script}: 40 kept, 0 refused\n")
    with serving(then=says) as endpoint:
        words = (*WORDS, "--policy", "prompted_agent", "--output", right, "--endpoint", endpoint.url, "--model", "m")
        code, out, err = call(*words, "--sessions", 64)
        assert (code, err) == (0, "")
        rows = [json.loads(line) for line in right.read_text().splitlines()]
        refused = [json.loads(line) for line in (tmp_path / "right.refused.jsonl").read_text().splitlines()]
        assert {one["reason"] for one in refused} == {"judged wrong"}
        assert len(rows) + len(refused) == 64
        assert f"{right}: {len(rows)} kept, {len(refused)} refused ({len(refused)} judged wrong)\n" in out
        paid = len(endpoint.asked)
        code, out, _ = call(*words, "--sessions", 64)
        assert (code, len(endpoint.asked)) == (0, paid)
        assert f"{right}: {len(rows)} kept" in out
        code, out, _ = call(*words, "--sessions", 96)
        assert code == 0
        assert len(endpoint.asked) > paid
    assert sessions_of(shipped_configs.read("quickstart", [f"imitation.sessions={script}"]).imitation) == 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policy", "oracle"), "--policy: one of teacher, prompt, prompted_agent, found oracle"),
        (("--policy", "prompted_agent"), "need --endpoint URL and --model NAME"),
        (("--policy", "teacher", "--endpoint", "http://x", "--model", "m"), "teacher takes neither"),
        (("--policy", "teacher", "--token-prices", "1", "2"), "--token-prices: they are those of --endpoint"),
    ],
)
def test_what_does_not_fit_together_is_refused(call, tmp_path, words, said):
    code, _, err = call(*WORDS, *words, "--sessions", 5, "--output", tmp_path / "demos.jsonl")
    assert code == 2
    assert said in one_line(err)


def config(*overrides) -> RunConfig:
    return shipped_configs.read("quickstart", overrides)


def test_a_plan_counts_the_lines_of_a_file_and_none_if_nothing_is_imitated(tmp_path, capsys):
    file = tmp_path / "demos.jsonl"
    file.write_text("{}\n" * 300)
    for sessions, steps in ((file, 3), (0, 0)):
        settings = config(f"imitation.sessions={sessions}", "imitation.batch=128")
        found = batches(settings, longest(settings))
        assert found.imitation_steps == steps
        show_batches(settings, found, longest(settings))
    assert "300 sessions, 3 optimizer steps" in capsys.readouterr().out
    with pipeline.progress_of(config("imitation.sessions=0")) as progress, progress.bar("teacher", 0):
        pass


def test_a_spec_with_lines_that_are_no_demonstrations_is_refused(tmp_path):
    file = tmp_path / "demos.jsonl"
    file.write_text('{"stream": 1}\n')
    for skipped, faults in (("false", 1), ("true", 0)):
        overrides = (f"imitation.sessions={file}", f"env.skip_bad={skipped}", "run.folder=" + str(tmp_path))
        found = check_spec("quickstart", overrides, Target(nodes=()))
        named = [fault for fault in found.faults if "demos.jsonl:1: not a demonstration" in fault]
        assert len(named) == faults
        assert any("are played when a training starts" in one for one in found.unchecked) == (not faults)


def test_a_training_ends_before_anything_starts_if_lines_are_wrong(call, tmp_path):
    model, file = write_model_folder(tmp_path / "model"), tmp_path / "demos.jsonl"
    (model / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    calls = [{"call": "[GetQuestion]"}, {"call": "[ClearContext]"}]
    file.write_text(json.dumps({"stream": 1_000_000, "question": "none", "calls": calls}) + "\n")
    words = (f"model.path={model}", f"run.folder={tmp_path / 'runs'}", f"imitation.sessions={file}")
    code, out, err = call("train", "quickstart", *words)
    assert (code, out) == (2, "")
    assert f"{file}:1: no such question; 'none' is not in shop/" in one_line(err)
    assert not (tmp_path / "runs").exists()
