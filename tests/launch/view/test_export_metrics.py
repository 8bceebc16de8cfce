"""`agile-ray export --to mlflow|wandb`: what each reads back is what TensorBoard reads, to the name, value and step.

`make extras` runs the tests that need the programs, in an environment that has them.
"""

import json
import struct
import sys
from collections import Counter

import pytest

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.record import history, provenance
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.types import Assigned, RunState, Update
from tests.conftest import one_line
from tests.fakes.stored import FAILED, ONE, rows

FRESH = RunState(imitation_steps=0, iteration=0, version=0)


def trained(recorder, state, iterations):
    for _ in range(iterations):
        state = state.next()
        with recorder.timed("collect"):
            pass
        update = Update(tokens=10, padding=0.25, seconds=0.5, metrics={"kl_nats": state.iteration / 8})
        assigned = Assigned(rows=rows(ONE), metrics={"credit_mean": 0.125})
        recorder.iteration(state, sessions=[ONE, FAILED], assigned=assigned, update=update)
    return state


@pytest.fixture
def run(tmp_path):
    """A run that imitated, trained, was resumed after losing an iteration, and evaluated an earlier one at its end."""
    config = RunConfig(run=Run(name="r", folder=tmp_path / "runs"), model=Model(path=tmp_path), env=Env(name="shop"))
    provenance.write(config)
    run = RunFolder.of(config)
    first = RunRecorder(run)
    for step in (1, 2):
        state = RunState(imitation_steps=step, iteration=0, version=0)
        first.imitation(state, Update(tokens=9, padding=0.0, seconds=0.25, metrics={"policy_loss": 1 / step}))
    kept = trained(first, state, 2)
    trained(first, kept, 1)
    first.close()
    second = RunRecorder(run)
    second.resume(kept)
    trained(second, kept, 2)
    second.evaluation(kept, "ppo", [ONE])
    second.close()
    return run


def recorded(run, part):
    """Each (name, step, value) that the history has, and how often."""
    lines = [history.scalars(line) for line in history.read(run.history)]
    return Counter(
        (name, line.step, float(value))
        for line in lines
        if line.imitation is (part == "imitation")
        for name, value in line.values.items()
    )


def exported(call, run, form):
    folder = run.path.parent / form
    code, out, _ = call("export", run.path, "--to", form, "--output", folder)
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == ["r/imitation", "r/ppo"]
    return folder


@pytest.mark.parametrize("part", ["imitation", "ppo"])
def test_tensorboard_has_what_the_history_names(run, part):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = accumulator(str(run.imitation_events if part == "imitation" else run.ppo_events))
    events.Reload()
    found = {(name, point.step) for name in events.Tags()["scalars"] for point in events.Scalars(name)}
    assert found == {(name, step) for name, step, _ in recorded(run, part)}


@pytest.mark.parametrize("part", ["imitation", "ppo"])
def test_mlflow_reads_what_was_recorded(call, run, part):
    mlflow = pytest.importorskip("mlflow")
    folder = exported(call, run, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    [experiment] = [one for one in client.search_experiments() if one.name == "agile-ray"]
    [one] = [one for one in client.search_runs([experiment.experiment_id]) if one.info.run_name == f"r/{part}"]
    points = [point for name in one.data.metrics for point in client.get_metric_history(one.info.run_id, name)]
    assert Counter((point.key, point.step, point.value) for point in points) == recorded(run, part)
    assert (one.info.status, one.data.params["env.name"]) == ("FINISHED", "shop")


@pytest.mark.parametrize("part", ["imitation", "ppo"])
def test_wandb_reads_what_was_recorded(call, run, part):
    wandb = pytest.importorskip("wandb")
    folder = exported(call, run, "wandb")
    wandb.teardown()  # ends its writer, as the end of the process does
    [(_, points)] = [(name, points) for name, points in offline_runs(folder) if name == f"r/{part}"]
    assert points == recorded(run, part)


def offline_runs(folder):
    """The name of each offline run of Weights & Biases, and its points."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        name, points = "", Counter()
        for data in log_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            name = record.run.display_name or name
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            step = items.pop("step", None)
            points.update((key, step, float(value)) for key, value in items.items() if not key.startswith("_"))
        yield name, points


def log_records(data):
    """The records of a log in LevelDB's format, which Weights & Biases writes after seven bytes of its own."""
    block, head, whole_or_last = 32_768, 7, (1, 4)
    at, found = head, b""
    while at + head <= len(data):
        if block - at % block < head:
            at += block - at % block
            continue
        size, kind = struct.unpack("<4xHB", data[at : at + head])
        found += data[at + head : at + head + size]
        at += head + size
        if kind in whole_or_last:
            yield found
            found = b""


def test_an_export_of_metrics_takes_no_source(call, run):
    code, _, err = call("export", run.path, "--to", "mlflow", "--source", "ppo")
    assert code == 2
    assert "--source: chooses sessions, but mlflow takes metrics" in one_line(err)


def test_sessions_need_a_folder(call, run):
    code, _, err = call("export", run.path, "--to", "parquet")
    assert code == 2
    assert "--output: parquet is written into a folder" in one_line(err)


def test_a_program_that_is_missing_is_named(call, run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    code, _, err = call("export", run.path, "--to", "mlflow", "--output", tmp_path / "x")
    assert code == 2
    assert "pip install 'agile-ray[mlflow]'" in one_line(err)
