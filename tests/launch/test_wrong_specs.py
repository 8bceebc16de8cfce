"""Kinds of wrong specs, each given to the commands that a user would run: one line, code 2, nothing started."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from agile_ray.record import provenance
from launch.cluster import dashboard
from launch.plan import this_machine
from launch.run.shipped_configs import read
from tests.conftest import one_line
from tests.fakes.dashboard import dashboard as serving
from tests.fakes.dashboard import node
from tests.fakes.model_folder import SIZES, write_model_folder

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 5.0
"""Of processor time and of waits for who does not answer; the machine may be busy with other things."""
QUICK = "base: quickstart\n"
CPUS = "--cluster=1x2xcpu-8"
GPUS = "cluster: {device: gpu}\nrollout: {dtype: bfloat16, actors: 6}\nlearner: {ranks: 4}"
KINDS = "expert: {price: {kinds: {fact: 0.2}}}"
CIRCLE = "ppo: {clip: '${ppo.gae_lambda}', gae_lambda: '${ppo.clip}'}"

WRONG = [  # kind, command, text of the spec, further words, what is said
    ("a typo", "validate", "ppo: {clp: 0.1}", [], "unknown key ppo.clp; the nearest known one is ppo.clip"),
    ("a typo", "train", "lop: {iterations: 2}", [], "unknown key lop; the nearest known one is loop"),
    ("a typo", "plan", "", ["learner.rank=2"], "unknown key learner.rank; the nearest known one is learner.ranks"),
    ("a type", "validate", "loop: {iterations: many}", [], "loop.iterations: Input should be a valid integer"),
    ("a type", "train", "env: {advice_cost: cheap}", [], "env.advice_cost: "),
    ("a type", "sweep", "grid: {seed: [0, one]}", [], "seed: Input should be a valid integer"),
    (
        "a contradiction",
        "validate",
        "rollout: {transport: nccl}",
        [],
        "rollout.transport is nccl, but cluster.device is cpu",
    ),
    ("a contradiction", "train", "rollout: {transport: nccl}", [], "use ray_shm or cluster.device=gpu"),
    ("a contradiction", "submit", "rollout: {tensor_parallel: 0}", ["--address={dead}"], "rollout.tensor_parallel: "),
    ("impossible resources", "validate", GPUS, [], "found 0; take machines that have GPUs, or set cluster.device=cpu"),
    ("impossible resources", "plan", GPUS, ["--cluster=1x4xH100-80"], "10 GPUs are needed"),
    ("impossible resources", "plan", "learner: {ranks: 64}", [CPUS], "find no room: 65 cores and "),
    ("an unreachable cluster", "validate", "", ["--address={dead}"], "no Ray dashboard answers there ("),
    ("an unreachable cluster", "plan", "", ["--address={dead}"], "no Ray dashboard answers there ("),
    ("an unreachable cluster", "submit", "", ["--address={dead}"], "no Ray dashboard answers there ("),
    (
        "an unreachable cluster",
        "sweep",
        "grid: {seed: [0, 1]}",
        ["--address={dead}"],
        "no Ray dashboard answers there (",
    ),
    ("a silent socket", "validate", "", ["--address={silent}"], "answers within 3 s, nothing came"),
    ("a silent socket", "submit", "", ["--address={silent}"], "answers within 3 s, nothing came"),
    ("a silent socket", "sweep", "grid: {seed: [0]}", ["--address={silent}"], "answers within 3 s, nothing came"),
    ("a wrong token", "validate", "", ["--address={guarded}"], "token refused; set RAY_AUTH_MODE=token"),
    ("a wrong token", "submit", "", ["--address={guarded}"], "token refused; set RAY_AUTH_MODE=token"),
    ("a wrong token", "sweep", "grid: {seed: [0]}", ["--address={guarded}"], "token refused; set RAY_AUTH_MODE=token"),
    ("a missing file", "validate", "include: [quickstart, gone.yaml]", [], "config gone.yaml: no such file"),
    ("a missing file", "train", "env: {name: medmcqa, data: /nowhere/medmcqa}", [], "/nowhere/medmcqa"),
    ("a missing file", "train", "", ["model.path=/nowhere/model"], "model.path: /nowhere/model is no folder"),
    ("no axis", "sweep", "", [], "by `grid` or `runs`, found neither; `agile-ray train` or `submit` trains"),
    ("a cyclic interpolation", "validate", CIRCLE, [], "ppo.clip refers to itself through ${...}; break the circle"),
    ("a cyclic interpolation", "train", "", ["ppo.clip=${ppo.clip}"], "refers to itself through ${...}"),
    ("an unknown axis", "validate", "grid: {ppo.epoch: [1, 2]}", [], "the nearest known one is ppo.epochs"),
    ("an unknown axis", "sweep", "grid: {ppo.epoch: [1, 2]}", [], "the nearest known one is ppo.epochs"),
    ("an unknown axis", "sweep", "runs: [[sede=1], [sede=2]]", [], "unknown key sede; the nearest known one is seed"),
    ("a name in use", "validate", "ppo: {clip: 0.11}", ["run.name=taken"], "ppo.clip was 0.3, is 0.11"),
    ("a name in use", "train", "ppo: {clip: 0.11}", ["run.name=taken"], "ppo.clip was 0.3, is 0.11"),
    ("an unshared folder", "validate", "", [CPUS, "run.folder=runs"], "run.folder=runs: on a cluster a path must be"),
    ("an unshared folder", "submit", "", ["--address={dead}", "run.folder=runs"], "on a disk that every node shares"),
    (
        "an unshared folder",
        "sweep",
        "grid: {seed: [0]}",
        ["--address={dead}", "model.path=models/a"],
        "absolute, and on a disk that every node shares, such as model.path=/mnt/shared/a",
    ),
    (
        "an unshared folder",
        "validate",
        "env: {expert: {colleague: {name: chat, url: 'http://h/v1', model: m, cache: c.sqlite, price: 0.1}}}",
        [CPUS],
        "env.expert.colleague.cache=c.sqlite: on a cluster a path must be absolute; each node has",
    ),
    ("no function tokens", "validate", "", ["model.path={plain}"], "add them with `agile-ray model from"),
    ("no function tokens", "train", "", ["model.path={plain}"], "add them with `agile-ray model from"),
    ("no expert", "validate", "env: {expert: 'nobody:build'}", [], "env.expert: "),
    ("no expert", "train", "env: {expert: golden}", [], "env.expert.name: one of chat, gold, http, inbox, "),
    ("no expert", "validate", "env: {expert: 'recorded:/nowhere/run'}", [], "must hold "),
    *[
        ("no address", "validate", f"env: {{expert: {{name: chat, model: m, url: '{url}'}}}}", [], said)
        for url, said in (
            ("localhost:8000/v1", "env.expert.url: an address begins with http:// or https://, found localhost:8000"),
            ("http:///v1", "an address names a host and a port, such as http://localhost:8000/v1, found http:///v1"),
            ("http://h:80000/v1", "an address names a host and a port, such as http://localhost:8000/v1, found"),
            ("http://me:secret@h/v1", "an address holds no user, password or query"),
        )
    ],
    ("no address", "validate", "env: {expert: {name: http}}", [], "http needs a url"),
    ("two price rules", "validate", f"env: {{advice_cost: [0.1, 0.5], {KINDS}}}", [], "found the kind rule, which"),
    ("two price rules", "train", f"env: {{{KINDS}}}\ncredit: {{mode: fitted}}", [], "use linked or heuristic"),
    ("another schema", "validate", "schema: 7", [], "reads specs of schema 1, found 7"),
    ("another schema", "train", "schema: one", [], "reads specs of schema 1, found one"),
    ("another schema", "sweep", "schema: 2\ngrid: {seed: [0]}", [], "reads specs of schema 1, found 2"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What words may name: a model, one without function tokens, and addresses."""
    folder = tmp_path_factory.mktemp("models")
    plain = write_model_folder(folder / "plain", **SIZES)
    content = json.loads((plain / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("[")]
    (plain / "tokenizer.json").write_text(json.dumps(content))
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        guarded, _ = stack.enter_context(serving(node("127.0.0.1"), token="right"))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            dead = closed.getsockname()[1]
        yield {
            "model": write_model_folder(folder / "tiny", **SIZES),
            "plain": plain,
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "guarded": guarded,
            "dead": f"http://127.0.0.1:{dead}",
        }


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")


def given(tmp_path, places, command, text, words):
    """The words of a command whose spec is wrong, and every path that there is before it."""
    spec, runs = tmp_path / "spec.yaml", tmp_path / "runs"
    spec.write_text(("" if "include" in text else QUICK) + text + "\n")
    if "run.name=taken" in words:
        provenance.write(read("quickstart", [f"model.path={places['model']}", f"run.folder={runs}", "run.name=taken"]))
    filled = [word.format(**places) if word.endswith("}") and "$" not in word else word for word in words]
    base = [f"model.path={places['model']}", f"run.folder={runs}"]
    set_here = {word.partition("=")[0] for word in filled}
    return (command, spec, *(word for word in base if word.partition("=")[0] not in set_here), *filled)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong[0]}, {wrong[1]}")
def test_a_wrong_spec_is_one_line_within_five_seconds_and_leaves_nothing(call, tmp_path, monkeypatch, places, wrong):
    kind, command, text, words, said = wrong
    if kind == "a silent socket":
        waits_s = dashboard.ANSWER_S
    else:
        waits_s = 0.0
        monkeypatch.setattr(dashboard, "ANSWER_S", 60.0)  # others answer at once, or refuse
    monkeypatch.setattr(this_machine, "_gpus", list)
    monkeypatch.chdir(tmp_path)
    line = given(tmp_path, places, command, text, words)
    before = set(tmp_path.rglob("*"))
    begin = time.process_time()
    code, out, err = call(*line)
    assert time.process_time() - begin + waits_s < LIMIT_S
    assert code == 2
    assert said in one_line(err)
    if command != "plan":  # which prints the arithmetic before it says that it does not fit
        assert out == ""
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["validate", "train", "plan", "submit", "sweep"])
def test_a_process_of_its_own_says_the_same(tmp_path, places, command):
    _, _, text, words, said = next(wrong for wrong in WRONG if wrong[1] == command)
    line = given(tmp_path, places, command, text, words)
    done = subprocess.run(
        [sys.executable, "-m", "launch.main", *map(str, line)],
        capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert said in one_line(done.stderr)
