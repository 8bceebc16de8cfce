"""Manifests for a cluster's own tools: their resources are those of the plan, and KubeRay knows their fields."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from launch.manifests.manifest import KINDS, print_manifest
from launch.manifests.rayjob import kubernetes_name
from launch.manifests.request import GPU_GIB, request
from launch.plan.machines import parse_shape
from launch.run.shipped_configs import read
from tests.conftest import one_line
from tests.fakes.model_folder import write_model_folder

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "launch" / "manifests" / "rayjob.schema.json").read_text())
EXAMPLES = ROOT / "launch" / "cluster" / "examples"
HERE = ("run.folder=/mnt/runs", "model.path=/mnt/models/qwen")
GPUS = ("cluster.device=gpu", "rollout.dtype=bfloat16", "learner.dtype=bfloat16", "loop.lanes=256")


def asked(*overrides, shape=None, priority=""):
    return request(
        read("quickstart", [*HERE, *overrides]),
        nodes=None if shape is None else parse_shape(shape),
        image="agile-ray:gpu",
        claim="disk",
        priority=priority,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["1x8xH100-80", "2x4xH100-80"])
def test_a_manifest_starts_the_training_with_what_follows_it(capsys, kind, shape):
    gpus = (*GPUS, "rollout.actors=4", "learner.ranks=4")
    words = {"shape": shape, "image": None, "claim": "disk", "priority": ""}
    print_manifest(kind, read("quickstart", [*HERE, *gpus]), **words, track=["mlflow", "wandb"])
    assert capsys.readouterr().out.count("agile-ray train --track mlflow --track wandb ") == 1


def documents(text):
    config_map, job = yaml.safe_load_all(text)
    jsonschema.validate(job, SCHEMA)
    return config_map, job


@pytest.mark.parametrize(
    ("overrides", "shape", "nodes", "gpus", "cores"),
    [
        ((), None, 1, 0, 5),  # two ranks and an engine, and two cores for the driver
        ((), "1x16xcpu-64", 1, 0, 15),  # the system keeps a core
        ((*GPUS, "rollout.actors=4", "learner.ranks=4"), None, 1, 8, 34),
        ((*GPUS, "rollout.actors=2", "learner.ranks=1"), None, 1, 3, 14),
        ((*GPUS, "rollout.actors=8", "learner.ranks=4"), None, 2, 6, 26),
        ((*GPUS, "rollout.actors=3", "rollout.tensor_parallel=4", "learner.ranks=1"), None, 2, 8, 34),
        ((*GPUS, "rollout.actors=16", "learner.ranks=16"), "6x8xH100-80", 4, 8, 34),
        ((*GPUS, "rollout.actors=4", "learner.ranks=4", "cluster.colocate=true"), None, 1, 4, 18),
    ],
)
def test_a_run_asks_for_the_nodes_that_its_actors_fill(overrides, shape, nodes, gpus, cores):
    found = asked(*overrides, shape=shape)
    assert (found.nodes, found.gpus, found.cores) == (nodes, gpus, cores)


def test_memory_is_the_plans_where_the_model_can_be_seen_and_else_assumed_and_said_so(tmp_path):
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
    model = write_model_folder(tmp_path / "model", vocab_size=32000, **sizes)
    here = (f"model.path={model}", f"run.folder={tmp_path}")
    small, large = asked(*here), asked(*here, "learner.micro_batch_tokens=65536")
    assert not small.assumed
    assert 8 < small.memory_gib < large.memory_gib
    assert asked(shape="1x16xcpu-64").memory_gib == 57  # and a tenth of the memory
    unseen = asked(*GPUS, "rollout.actors=4", "learner.ranks=4")
    assert (unseen.assumed, unseen.memory_gib) == (True, 8 * GPU_GIB)
    for print_one in (KINDS["rayjob"], KINDS["slurm"]):
        assert "The memory is assumed" in print_one(unseen)
        assert "The memory is assumed" not in print_one(small)


def test_a_rayjob_has_the_resources_on_every_pod_and_the_spec_beside_it():
    words = (*GPUS, "rollout.actors=8", "learner.ranks=8", "run.name=Price_0.5")
    config_map, job = documents(KINDS["rayjob"](asked(*words, shape="2x8xH100-80", priority="high")))
    assert job["metadata"]["name"] == config_map["metadata"]["name"] == "price-0-5"
    cluster = job["spec"]["rayClusterSpec"]
    [workers] = cluster["workerGroupSpecs"]
    assert [workers[key] for key in ("replicas", "minReplicas", "maxReplicas")] == [1, 1, 1]
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
        assert pod["priorityClassName"] == "high"
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/mnt", "/dev/shm", "/etc/agile-ray"}
        assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    assert job["spec"]["entrypoint"] == "agile-ray train /etc/agile-ray/spec.yaml"
    assert config_map["data"]["spec.yaml"] == read("quickstart", [*HERE, *words]).yaml()


@pytest.mark.parametrize(
    "wrong",
    [
        {"apiVersion": "ray.io/v1alpha1"},
        {"spec": {"entrypoint": "x"}},
        {"metadata": {"name": "Upper"}},
        {"shutdown": True},
    ],
)
def test_the_schema_refuses_what_kuberay_would_not_take(wrong):
    _, job = documents(KINDS["rayjob"](asked()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job | wrong, SCHEMA)


def test_the_schema_names_its_source():
    assert "https://github.com/ray-project/kuberay at tag v1.7.0" in SCHEMA["$comment"]


SHOWN = {
    "rayjob-cpu": (),
    "rayjob-gpu-node": (
        *("run.name=one-node", "cluster.device=gpu", "rollout.actors=4", "learner.ranks=4"),
        *("rollout.dtype=bfloat16", "learner.dtype=bfloat16"),
    ),
    "rayjob-gpu-nodes": (
        *("run.name=many-nodes", "cluster.device=gpu", "rollout.actors=16", "learner.ranks=16"),
        *("rollout.dtype=bfloat16", "learner.dtype=bfloat16", "loop.lanes=256"),
        *("--cluster", "4x8xH100-80", "--priority", "high"),
    ),
}
"""The examples, and the words after `agile-ray submit quickstart --manifest rayjob` that write them."""


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_is_what_the_command_prints(call, name):
    model = "model.path=/mnt/models/tiny" if name == "rayjob-cpu" else "model.path=/mnt/models/qwen"
    words = ("submit", "quickstart", "--manifest", "rayjob", "run.folder=/mnt/runs", model, *SHOWN[name])
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert (EXAMPLES / f"{name}.yaml").read_text() == out
    documents(out)


def test_there_are_no_other_examples():
    assert sorted(path.stem for path in EXAMPLES.iterdir()) == sorted(SHOWN)


def options(script):
    return dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in script.splitlines() if "#SBATCH" in line
    )


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_batch_script_asks_slurm_for_the_same_and_is_a_shell_script(tmp_path, nodes):
    words = (*GPUS, f"rollout.actors={4 * nodes}", f"learner.ranks={4 * nodes}")
    script = KINDS["slurm"](asked(*words, shape=f"{nodes}x8xH100-80", priority="high"))
    found = options(script)
    assert found["nodes"] == str(nodes)
    assert (found["gpus-per-node"], found["cpus-per-task"], found["qos"]) == ("h100:8", "34", "high")
    assert found["signal"] == "B:TERM@60"
    assert ("ray start" in script) == (nodes > 1)
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=110, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_batch_script_trains_the_spec_and_passes_sigterm_on(tmp_path):
    script = KINDS["slurm"](asked(f"run.folder={tmp_path}/runs", "model.path=/tmp/model"))
    trained = tmp_path / "agile-ray"
    trained.write_text(
        '#!/bin/bash\ntrap "echo saved; exit 143" TERM\necho "$@"; kill -TERM $PPID\n'
        "for _ in $(seq 100); do sleep 0.1; done\n"
    )
    trained.chmod(0o755)
    done = subprocess.run(
        ["bash"], input=script, text=True, capture_output=True, timeout=110, check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    spec = tmp_path / "runs" / "quickstart.submitted.yaml"
    assert (done.returncode, done.stdout) == (143, f"train {spec}\nsaved\n"), done.stderr
    assert read(str(spec)).run.folder == tmp_path / "runs"


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_task_asks_skypilot_for_the_same_and_its_commands_are_a_shell_script(nodes):
    words = (*GPUS, f"rollout.actors={4 * nodes}", f"learner.ranks={4 * nodes}")
    task = yaml.safe_load(KINDS["skypilot"](asked(*words, shape=f"{nodes}x8xH100-80", priority="high")))
    assert (task["num_nodes"], task["resources"]["accelerators"], task["resources"]["cpus"]) == (nodes, "H100:8", "34+")
    assert task["config"]["kubernetes"]["pod_config"]["spec"] == {"priorityClassName": "high"}
    content = re.search(r"<<'END'\n(.*?)^END$", task["run"], re.DOTALL | re.MULTILINE)[1]
    assert yaml.safe_load(content)["rollout"]["actors"] == 4 * nodes
    checked = subprocess.run(
        ["bash", "-n"], input=task["run"], text=True, capture_output=True, timeout=110, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--manifest", "helm"), "--manifest: one of rayjob, slurm, skypilot, found helm"),
        (("--manifest", "rayjob", "run.folder=runs"), "run.folder=runs: on a cluster a path must be absolute"),
        (("--manifest", "rayjob", "model.path=/data/tiny"), "must be below one folder that every node mounts"),
        (("--manifest", "skypilot", *GPUS), "which GPUs: give --cluster, such as 1x8xH100-80"),
        (("--manifest", "slurm", *GPUS, "--cluster", "1x1xH100-80"), "it does not fit: no room for rank-0"),
        (
            ("--manifest", "slurm", *GPUS, "rollout.actors=8", "--cluster", "1x8xH100-80+1x8xA100-40"),
            "nodes of one kind are needed here, found node-0, node-1",
        ),
        (("--manifest", "slurm", "--cluster", "many"), "a shape is NODESxCOUNTxKIND-GIB"),
    ],
)
def test_what_has_no_manifest_is_refused_in_one_line(call, words, said):
    code, out, err = call("submit", "quickstart", *HERE, *words)
    assert (code, out) == (2, "")
    assert said in one_line(err)


def test_names_of_runs_become_names_of_kubernetes():
    names = {"a": "a", "Price_0.5": "price-0-5", "-x-": "x", "y" * 60: "y" * 47, "___": "run"}
    assert {name: kubernetes_name(name) for name in names} == names
