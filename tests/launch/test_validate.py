"""`agile-ray validate`: every shipped spec passes, and a wrong one is one line; more are in test_wrong_specs.py."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agile_ray.errors import ConfigError
from launch.cluster.dashboard import Dashboard
from launch.plan import this_machine
from launch.run import shipped_configs
from launch.run.shipped_configs import read
from launch.validate import machines
from tests.conftest import one_line
from tests.fakes.dashboard import dashboard, node
from tests.fakes.model_folder import SIZES, write_model_folder

SHIPPED = sorted({**shipped_configs.shipped_in(), **shipped_configs.shipped_in(shipped_configs.SWEEPS)})
ROOT_OF_DATA = Path(os.environ.get("AGILE_DATA", "data")).resolve()
DATA = {
    "productqa": ROOT_OF_DATA / "productqa",
    "productqa_ablations": ROOT_OF_DATA / "productqa",
    "medmcqa": ROOT_OF_DATA / "medmcqa",
    "hotpotqa": ROOT_OF_DATA / "hotpotqa",
}


@pytest.fixture(autouse=True)
def patient(monkeypatch, request):
    """Whoever is asked answers at once, however busy the machine is."""
    for limit in ("cluster.dashboard.ANSWER_S", "cluster.dashboard.PROBE_S", "cluster.dashboard.READ_S"):
        monkeypatch.setattr(f"launch.{limit}", 60.0)
    if request.node.get_closest_marker("data") is None:  # large data are read in part
        monkeypatch.setattr("launch.validate.spec.READ_S", 60.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("models") / "tiny", **SIZES)


@pytest.fixture
def no_token(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in DATA])
def test_a_shipped_spec_is_right(call, tmp_path, model, name):
    code, out, err = call("validate", name, f"model.path={model}", f"run.folder={tmp_path}")
    assert (code, err) == (0, "")
    assert out.startswith(f"{name}: right, ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in SHIPPED if name in DATA])
def test_a_shipped_spec_with_data_is_right(call, tmp_path, model, name):
    if not DATA[name].is_dir():
        pytest.skip(f"needs {DATA[name]}")
    words = (f"model.path={model}", f"run.folder={tmp_path}", f"env.data={DATA[name]}", "memory.embedder=hashed")
    code, _, err = call("validate", name, *words)
    assert (code, err) == (0, "")


def test_several_specs_are_checked_at_once_and_each_fault_is_a_line(call, tmp_path, model, monkeypatch):
    (tmp_path / "one.yaml").write_text("base: quickstart\nppo: {clipp: 0.1}\nloop: {iterations: many}\n")
    (tmp_path / "two.yaml").write_text("base: quickstart\nenv: {name: shopp}\nmodel: {path: nowhere}\n")
    monkeypatch.chdir(tmp_path)  # where no model is
    code, out, err = call(
        "validate", "quickstart", tmp_path / "one.yaml", tmp_path / "two.yaml", f"run.folder={tmp_path}"
    )
    assert code == 2
    assert out == ""
    first, second, third, fourth = err.splitlines()
    assert first.startswith("agile-ray: quickstart: model.path: models/tiny is no folder")
    assert second.startswith(f"agile-ray: {tmp_path / 'one.yaml'}: ")
    assert "unknown key ppo.clipp; the nearest known one is ppo.clip; loop.iterations: " in second
    assert "env.name: one of dataset, hotpotqa" in third
    assert "model.path: nowhere is no folder" in fourth


def test_streams_that_take_long_to_read_are_listed_as_unchecked(call, tmp_path, model, monkeypatch):
    monkeypatch.setattr("launch.validate.spec.READ_S", -1.0)
    code, out, _ = call("validate", "quickstart", f"model.path={model}", f"run.folder={tmp_path}")
    assert code == 0
    assert "quickstart: unchecked: env.data: 3 streams were not read within -1 s; a training reads all" in out


@pytest.mark.parametrize(("name", "more"), [("http", ""), ("chat", ", model: m, wrong: 0.1")])
def test_an_expert_who_is_away_is_no_fault_of_the_spec_and_listed_as_unchecked(call, tmp_path, model, name, more):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    words = (f"env.expert={{name: {name}, url: '{url}'{more}}}", f"model.path={model}", f"run.folder={tmp_path}")
    code, out, err = call("validate", "quickstart", *words)
    assert (code, err) == (0, "")
    assert f"quickstart: unchecked: env.expert: {name} at {url} is asked when the agent asks" in out.splitlines()


def test_the_resolved_configuration_has_every_default(call, model):
    code, out, _ = call("validate", "quickstart", f"model.path={model}", "--resolved")
    assert code == 0
    assert "  early_stop_kl: null\n" in out
    assert read("quickstart", [f"model.path={model}"]).yaml() in out


LINES = {
    "a cache for no session": (
        "rollout: {kv_cache_gib: 0.00001}",
        "rollout.kv_cache_gib: the cache must hold a session",
    ),
    "missing data": ("env: {name: medmcqa, data: /nowhere/medmcqa}", "/nowhere/medmcqa"),
    "an axis without a value": ("grid: {seed: []}", "grid.seed: a key of the grid has at least one value, found none"),
    "a pair that is none": (
        "grid: {seed: [1]}\ncompare: {key: seed, to: 4}",
        "compare.to must be a value that a run gives seed, found 4; there are: 1",
    ),
    "sessions that the model is too short for": (
        "agent: {session_tokens: 3000}",
        "agent.session_tokens (3000) reaches the model's limit of 2048 positions",
    ),
    "a price of a kind that is not asked": (
        "env: {expert: {colleague: {price: {base: 0.1, kinds: {facts: 0.2}}}}}",
        "env.expert.colleague.price.kinds: the kinds of questions of shop are fact, reasoning, search, found facts",
    ),
    "an unknown environment": ("env: {name: market}", "env.name: one of dataset, hotpotqa"),
}


@pytest.mark.parametrize("wrong", LINES)
def test_a_wrong_spec_is_one_line_with_code_2_and_nothing_is_written(
    call, tmp_path, model, monkeypatch, no_token, wrong
):
    text, said = LINES[wrong]
    runs = tmp_path / "runs"
    base = "" if "include" in text else "base: quickstart\n"
    (tmp_path / "spec.yaml").write_text(base + text + "\n")
    monkeypatch.setattr(this_machine, "_gpus", list)
    code, out, err = call("validate", tmp_path / "spec.yaml", f"model.path={model}", f"run.folder={runs}")
    assert (code, out) == (2, "")
    assert said in one_line(err)
    assert str(tmp_path / "spec.yaml") in err
    assert not runs.exists()


def test_a_model_without_the_function_of_the_tasks_tool_is_named(call, tmp_path, model, monkeypatch):
    toolless = Path(shutil.copytree(model, tmp_path / "toolless"))
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if one["content"] != "[CallTool]"]
    (toolless / "tokenizer.json").write_text(json.dumps(tokenizer))
    monkeypatch.chdir(Path(__file__).parents[2] / "examples" / "trivia")
    code, _, _ = call("validate", "trivia.yaml", f"model.path={model}", f"run.folder={tmp_path}")
    assert code == 0
    code, out, err = call("validate", "trivia.yaml", f"model.path={toolless}", f"run.folder={tmp_path}")
    assert (code, out) == (2, "")
    assert "lacks [CallTool], by which the environment's tools are called; add it with: agile-ray" in one_line(err)


def test_without_an_address_the_paths_of_a_cluster_are_listed_as_unchecked(call):
    words = ("run.folder=/mnt/runs", "model.path=/mnt/models/a", "--cluster", "2x8xcpu-64")
    code, out, err = call("validate", "quickstart", *words)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "quickstart: as far as it is checked, right, 1 run",
        "quickstart: unchecked: model.path: /mnt/models/a is on the cluster",
    ]


@pytest.mark.parametrize("command", ["validate", "submit"])
def test_a_token_that_is_missing_is_one_line(call, tmp_path, model, no_token, command):
    with dashboard(node("127.0.0.1"), token="right") as (address, _):
        code, _, err = call(
            command, "quickstart", "--address", address, f"run.folder={tmp_path}", f"model.path={model}"
        )
    assert code == 2
    assert f"--address {address}: token refused; set RAY_AUTH_MODE=token" in one_line(err)


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "ray://10.0.0.1:10001", "http://"])
def test_an_address_that_is_no_dashboards_is_one_line(call, address):
    code, _, err = call("validate", "quickstart", "--address", address)
    assert code == 2
    assert "the dashboard's address is needed, such as http://10.0.0.1:8265" in one_line(err)


def test_another_web_server_is_no_cluster(no_token):
    with dashboard(version=False) as (address, _), pytest.raises(ConfigError, match="must be a Ray dashboard, found"):
        Dashboard(address).check()


def test_the_nodes_of_a_cluster_are_those_that_live(monkeypatch, no_token):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    nodes = (node("10.0.0.1", cores=32, gib=256), node("10.0.0.2", gpus=8), node("10.0.0.3", gpus=8, state="DEAD"))
    with dashboard(*nodes, token="right") as (address, _):
        cpu, gpu = machines.nodes_of(Dashboard(address))
    assert (cpu.name, cpu.cores, cpu.memory_bytes, cpu.gpus) == ("10.0.0.1", 32, 256 * 2**30, 0)
    assert (gpu.gpus, gpu.gpu_kind, gpu.gpu_bytes) == (8, "H100", 81559 * 2**20)


def test_a_cluster_on_this_machine_has_the_paths_of_this_machine(call, tmp_path, model, no_token):
    with dashboard(node("127.0.0.1", cores=16)) as (address, server):
        words = ("validate", "quickstart", f"run.folder={tmp_path}", "--address", address)
        code, out, err = call(*words, f"model.path={model}")
        assert (code, out, err) == (0, "quickstart: right, 1 run\n", "")
        code, _, err = call(*words, "model.path=/nowhere/model")
        assert (code, server.jobs) == (2, {})
    assert "/nowhere/model is no folder" in one_line(err)


def test_a_cluster_elsewhere_is_asked_for_its_paths(call, monkeypatch, tmp_path, model, no_token):
    monkeypatch.setattr(Dashboard, "is_here", False)
    with dashboard(node("10.0.0.1", cores=16)) as (address, server):
        words = ("validate", "quickstart", f"run.folder={tmp_path}", "--address", address)
        code, out, err = call(*words, f"model.path={model}")
        assert (code, out, err) == (0, "quickstart: right, 1 run\n", "")
        code, _, err = call(*words, f"model.path={tmp_path}/it's gone")
        assert len(server.jobs) == 2
    assert code == 2
    assert f"model.path: the cluster has no {tmp_path}/it's gone; put it on the disk that its nodes share" in one_line(
        err
    )


def test_validating_loads_neither_torch_nor_ray(model):
    code = (
        "import sys\nfrom launch.main import main\n"
        f"sys.argv = ['agile-ray', 'validate', 'quickstart', 'prices', 'model.path={model}', "
        f"'run.folder={model.parent}']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code)\n"
        "print('heavy', *{'torch', 'ray', 'vllm', 'deepspeed', 'transformers'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True, cwd=root
    )
    assert done.stdout.splitlines()[-2:] == ["0", "heavy"]
