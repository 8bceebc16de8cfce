"""What MLflow and Weights & Biases read is what TensorBoard reads, to the name, value and step: of `agile-ray export`,
and of a training that is told to `--track` them.

`make extras` runs the tests that need the programs, in an environment that has them.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil
import pytest

from agile_ray.errors import LearnerError
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.record.tracking import programs, tracker, wandb_curves
from agile_ray.record.tracking.tracker import open_programs, tracked
from tests.conftest import one_line
from tests.fakes import wandb_server
from tests.fakes.recorded import begun, imitated, recorded, sessions, trained

SETTINGS = ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR")
REST_S = 500
PARTS = ("imitation", "ppo")


@pytest.fixture(autouse=True)
def at_ease(monkeypatch):
    """No server is named, and nothing has to be fast."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name in ("STOP_S", "END_S", "CHECK_S"):
        monkeypatch.setattr(tracker, name, REST_S)
    for name in ("BEGIN_S", "END_S"):
        monkeypatch.setattr(wandb_curves, name, REST_S)


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """A database of MLflow with nothing in it: to make one takes MLflow seconds."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("empty")
    programs.mlflow(folder).prepare()
    return folder / "mlflow.db"


@pytest.fixture
def run(tmp_path):
    """A run that imitated, trained, was resumed after losing an iteration, and evaluated an earlier one at its end."""
    return sessions(begun(tmp_path))


def exported(call, run, form):
    folder = run.path.parent / form
    code, out, _ = call("export", run.path, "--to", form, "--output", folder)
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == ["r/imitation", "r/ppo"]
    return folder


def live(folder, form, *, failed=False, stopped=lambda folder: None):
    """The same run, tracked in two starts of a training: the first is stopped, the second finishes or fails."""
    config, said, blocks = begun(folder), [], []
    run = RunFolder.of(config)

    def begin():
        blocks.append(tracked(config, open_programs([form], run), say=said.append, stopping=lambda: False))
        blocks[-1].__enter__()

    def resumed():
        blocks[0].__exit__(None, None, None)
        stopped(run.tracking)
        begin()

    begin()
    sessions(config, between=resumed)
    if failed:
        assert not blocks[1].__exit__(LearnerError, LearnerError("loss"), None)
    else:
        run.report.write_text("{}")
        blocks[1].__exit__(None, None, None)
    assert said[0] == f"{form}: curves go to {said[0].partition(' go to ')[2]}"
    assert [line for line in said if " go to " not in line] == [
        f"{form}: lines that were recorded again after a resumption, and keep their earlier values there: 1; the "
        "history and TensorBoard have those that count"
    ]
    return run, run.tracking


def assert_contract(points, run, part, how):
    """What a program has of a part is what the history has.

    A training that was tracked keeps the values of the iteration that it lost, and the time that closing took.
    """
    found, kept = points, recorded(run, part)
    if how == "live" and part == "ppo":
        assert {(name, step) for name, step, _ in kept} <= {(name, step) for name, step, _ in found}
        shown = [(name, step) for name, step, _ in found.elements() if name.startswith("iteration/")]
        assert len(shown) == len(set(shown))
        found = Counter({point: count for point, count in found.items() if point[1] != 3})
        kept = Counter({point: count for point, count in kept.items() if point[1] != 3})
    assert found == kept


@pytest.mark.parametrize("part", ["imitation", "ppo"])
def test_tensorboard_has_what_the_history_names(run, part):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = accumulator(str(run.imitation_events if part == "imitation" else run.ppo_events))
    events.Reload()
    found = {(name, point.step) for name in events.Tags()["scalars"] for point in events.Scalars(name)}
    assert found == {(name, step) for name, step, _ in recorded(run, part)}


@pytest.mark.parametrize("how", ["exported", "live", "failed"])
def test_mlflow_reads_what_was_recorded(call, tmp_path, database, how):
    for folder in (tmp_path / "runs" / "mlflow", tmp_path / "runs" / "r" / "tracking"):
        folder.mkdir(parents=True)
        shutil.copy(database, folder)
    if how == "exported":
        run = sessions(begun(tmp_path))
        folder = exported(call, run, "mlflow")
    else:
        stopped = []
        run, folder = live(
            tmp_path,
            "mlflow",
            failed=how == "failed",
            stopped=lambda folder: stopped.extend(in_mlflow(folder, f"r/{part}")[1] for part in PARTS),
        )
        assert stopped == ["FINISHED", "KILLED"]
    ends = {"imitation": "FINISHED", "ppo": "FAILED" if how == "failed" else "FINISHED"}
    for part in PARTS:
        points, status, params = in_mlflow(folder, f"r/{part}")
        assert_contract(points, run, part, how.replace("failed", "live"))
        assert (status, params["env.name"]) == (ends[part], "shop")


def in_mlflow(folder, name):
    """Points, status and parameters of the only run of this name."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    [experiment] = [one for one in client.search_experiments() if one.name == "agile-ray"]
    [one] = [one for one in client.search_runs([experiment.experiment_id]) if one.info.run_name == name]
    points = [point for key in one.data.metrics for point in client.get_metric_history(one.info.run_id, key)]
    return Counter((point.key, point.step, point.value) for point in points), one.info.status, one.data.params


@pytest.mark.parametrize("how", ["exported", "live", "failed"])
def test_wandb_reads_what_was_recorded(call, tmp_path, how):
    wandb = pytest.importorskip("wandb")
    if how == "exported":
        run = sessions(begun(tmp_path))
        folder = exported(call, run, "wandb")
    else:
        run, folder = live(tmp_path, "wandb", failed=how == "failed")
    wandb.teardown()  # ends its writer, as the end of the process does
    found = list(files(folder))
    for part in PARTS:
        own = [one for one in found if one.name == f"r/{part}"]
        assert len({one.id for one in own}) == 1
        assert_contract(sum((one.points for one in own), Counter()), run, part, how.replace("failed", "live"))
        indices = [index for one in own for index in one.indices]
        assert indices == list(range(len(indices)))
    codes = [one.exit_code for one in found if one.name == "r/ppo"]
    assert codes == {"exported": [0], "live": [255, 0], "failed": [255, 1]}[how]


@dataclass(kw_only=True)
class Offline:
    """One file of Weights & Biases."""

    id: str = ""
    name: str = ""
    points: Counter = field(default_factory=Counter)
    indices: list = field(default_factory=list)
    exit_code: int | None = None


def files(folder, pattern="offline-run-*"):
    """Its files, the older first."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob(f"wandb/{pattern}/*.wandb"), key=lambda path: path.stat().st_ctime_ns):
        one = Offline()
        for data in log_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            one.name = record.run.display_name or one.name
            one.id = record.run.run_id or one.id
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            step = items.pop("step", None)
            one.points.update((key, step, float(value)) for key, value in items.items() if not key.startswith("_"))
            if items:
                one.indices.append(items["_step"])
            if record.HasField("exit"):
                one.exit_code = record.exit.exit_code
        yield one


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


@pytest.mark.parametrize("output", ["x", "new/x"])
def test_a_program_that_is_missing_is_named_and_no_folder_is_made(call, run, monkeypatch, tmp_path, output):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    before = sorted(tmp_path.iterdir())
    code, _, err = call("export", run.path, "--to", "mlflow", "--output", tmp_path / output)
    assert code == 2
    assert "pip install 'agile-ray[mlflow]'" in one_line(err)
    assert sorted(tmp_path.iterdir()) == before


def test_a_server_that_refuses_an_export_is_one_line(call, run, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    code, _, err = call("export", run.path, "--to", "mlflow")
    assert (code, "secret" in err) == (1, False)
    assert "--to mlflow: http://127.0.0.1:9 must take the metrics, found " in one_line(err)


@pytest.mark.parametrize(
    ("form", "settings", "where"),
    [
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ("wandb", {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ("wandb", {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
    ],
)
def test_a_server_that_does_not_answer_is_one_line_before_a_training(form, settings, where, tmp_path):
    pytest.importorskip(form)
    code = (
        "import sys; from pathlib import Path; from launch.border import border\n"
        "from agile_ray.record.folder import RunFolder\n"
        "from agile_ray.record.tracking.tracker import open_programs\n"
        "with border(): open_programs([sys.argv[1]], RunFolder(Path(sys.argv[2]) / 'r'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, form, tmp_path / "runs"],
        env=os.environ | settings | {"HOME": str(tmp_path)},  # where its client looks for keys
        capture_output=True,
        text=True,
        check=False,
        timeout=REST_S,
    )
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.splitlines()[-1].startswith(f"agile-ray: --track {form}: {where} must answer before a training")
    assert "k" * 40 not in ran.stderr
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def server(monkeypatch):
    """A server of Weights & Biases; its client is set up anew for it, and ended."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    with wandb_server.serving() as one:
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", one.url)
        yield one
        wandb.teardown()


def test_a_server_of_wandb_has_what_was_recorded(server, tmp_path):
    run, _ = live(tmp_path, "wandb")
    for part in PARTS:
        [id] = server.runs(f"r/{part}")
        lines = [json.loads(line) for line in server.histories[id]]
        assert [line["_step"] for line in lines] == list(range(len(lines)))
        points = Counter(
            (name, line["step"], float(value))
            for line in lines
            for name, value in line.items()
            if name != "step" and not name.startswith("_")
        )
        assert_contract(points, run, part, "live")
        assert server.exits[id] == ([0] if part == "imitation" else [255, 0])


def test_a_signal_to_all_processes_of_a_training_leaves_wandb_s_run_marked_as_stopped(tmp_path):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    config, said = begun(tmp_path), []
    run = RunFolder.of(config)
    with tracked(config, open_programs(["wandb"], run), say=said.append, stopping=lambda: True):
        recorder = RunRecorder(run)
        state = trained(recorder, imitated(recorder), 1)
        deadline_s = time.monotonic() + REST_S
        while not any(one.name == "r/ppo" for one in files(run.tracking)) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        [core] = [child for child in psutil.Process().children() if "wandb-core" in child.name()]
        core.terminate()
        core.wait(REST_S)
        trained(recorder, state, 1)
        recorder.close()
    wandb.teardown()
    assert [file.exit_code for file in files(run.tracking) if file.name == "r/ppo"] == [None, 255]
    assert not [text for text in said if "not given" in text or "not marked" in text]


def test_a_server_of_wandb_that_goes_away_holds_nothing_up_and_its_file_has_the_rest(server, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_curves, "END_S", 5)
    config, said = begun(tmp_path), []
    run = RunFolder.of(config)
    with tracked(config, open_programs(["wandb"], run), say=said.append, stopping=lambda: False):
        recorder = RunRecorder(run)
        state = trained(recorder, imitated(recorder), 1)
        deadline_s = time.monotonic() + REST_S
        while not server.runs("r/ppo") and time.monotonic() < deadline_s:
            time.sleep(0.1)
        server.away.set()
        trained(recorder, state, 2)
        recorder.close()
        run.report.write_text("{}")
    assert said[0] == f"wandb: curves go to {server.url}"
    assert said[-1].startswith("wandb: the server lacks a part after 5 s; upload it with: wandb sync ")
    [file] = [one for one in files(run.tracking, "run-*") if one.name == "r/ppo"]
    assert file.points == recorded(run, "ppo")
