"""progress.json, and what `agile-ray status` makes of it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from ray.job_submission import JobStatus

from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.history import Event
from launch.cluster.dashboard import Dashboard
from launch.cluster.jobs import Jobs
from launch.run.progress import Progress
from launch.status import progress_file, sweep_index
from launch.status.on_cluster import look_at
from launch.status.progress_file import ProgressFile, State
from launch.status.seen import OLD_S, cells, look
from launch.status.sweep_index import Index, IndexedRun
from tests.fakes.dashboard import dashboard
from tests.fakes.job_client import FakeClient, job


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Whoever is asked answers at once, however busy the machine is."""
    for limit in ("ANSWER_S", "PROBE_S", "READ_S"):
        monkeypatch.setattr(f"launch.cluster.dashboard.{limit}", 60.0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "runs" / "one")


@pytest.fixture
def file(run, clock):
    return ProgressFile(run, iterations=10, clock=clock)


def content(run):
    return json.loads(run.progress.read_text())


def test_a_change_of_phase_is_written_at_once_and_names_its_stage(file, run):
    file.begin()
    assert (content(run)["stage"], content(run)["pid"]) == ("start", os.getpid())
    for phase, stage in [
        ("teach", "teacher"),
        ("imitate", "imitation"),
        ("evaluate", "evaluation"),
        ("collect", "ppo"),
    ]:
        file.phase(phase)
        assert (content(run)["phase"], content(run)["stage"]) == (phase, stage)
    assert (content(run)["done"], content(run)["total"]) == (0, 10)


def test_a_count_is_written_when_the_last_write_is_some_seconds_old(file, run, clock):
    file.phase("collect")
    clock.now += 1
    file.count(3, 40)
    assert content(run)["phase_done"] == 0
    clock.now += progress_file.WRITE_S
    file.count(7, 40)
    assert (content(run)["phase_done"], content(run)["phase_total"]) == (7, 40)
    assert content(run)["done"] == 0  # iterations, not sessions


def test_the_time_left_of_ppo_is_that_of_the_iterations_that_this_process_did(file, run, clock):
    file.resumed(4)
    file.phase("collect")
    clock.now += 30
    file.iteration(5, {"total_score": 0.5, "rows": 7})
    clock.now += 50
    file.iteration(6, {"total_score": 0.75, "asked_share": 0.25, "rows": 7})
    assert (content(run)["done"], content(run)["left_s"]) == (6, 80 / 2 * 4)
    assert content(run)["metrics"] == {"total_score": 0.75, "asked_share": 0.25}


def test_the_time_left_of_imitation_does_not_count_what_an_earlier_process_learned(file, run, clock):
    file.phase("imitate")
    clock.now += progress_file.WRITE_S
    file.count(501, 1500)
    assert content(run)["left_s"] is None
    clock.now += 20
    file.count(511, 1500)
    assert content(run)["left_s"] == pytest.approx(2 * (1500 - 511))


@pytest.mark.parametrize(
    ("error", "report", "state"),
    [
        (None, True, "finished"),
        (None, False, "stopped"),
        (KeyboardInterrupt, False, "stopped"),
        (ValueError, False, "failed"),
    ],
)
def test_the_end_of_a_process_says_how_it_went(run, error, report, state):
    progress = Progress(imitation_steps=1, iterations=3, run=run)
    try:
        with progress:
            progress.phase("collect")
            progress.line({"event": Event.RESUME, "name": "", "iteration": 2, "discarded_seconds": 0.0})
            if report:
                run.report.write_text("{}")
            if error:
                raise error("no room\nfor it")
    except (ValueError, KeyboardInterrupt):
        pass
    assert content(run)["state"] == state
    assert content(run)["error"] == ("ValueError: no room for it" if state == "failed" else "")
    assert look(run).state == state
    assert look(run).ended


def test_a_bar_counts_in_the_file(run, monkeypatch):
    monkeypatch.setattr(progress_file, "WRITE_S", 0.0)
    with Progress(imitation_steps=1, iterations=3, run=run) as progress:
        progress.phase("teach")
        with progress.bar("teacher", 40) as played:
            played(12)
        assert (content(run)["done"], content(run)["total"]) == (12, 40)
        assert look(run).state == "running"
        assert "teach 12/40" in look(run).note


def test_a_run_whose_process_is_gone_is_called_gone(file, run):
    file.begin()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    changed = content(run) | {"pid": ended.pid}
    run.progress.write_text(json.dumps(changed))
    assert look(run).state == "gone"
    run.progress.write_text(json.dumps(content(run) | {"pid": os.getpid(), "process_started": 5.0}))
    assert look(run).state == "gone"  # the number belongs to a later process
    run.progress.write_text(json.dumps(content(run) | {"process_started": psutil.Process().create_time()}))
    assert look(run).state == "running"


def test_all_of_a_finished_run_is_done(file, run):
    file.phase("evaluate")
    file.count(0, 3)  # the rest was played between two counts
    file.end(State.FINISHED)
    assert cells(look(run))[1:3] == ("finished", "evaluation 3/3")


def test_an_old_file_of_another_machine_is_called_old(file, run):
    file.begin()
    run.progress.write_text(json.dumps(content(run) | {"host": "elsewhere", "pid": 1}))
    assert look(run).state == "running"
    later = datetime.now(UTC) + timedelta(seconds=OLD_S + 60)
    seen = look(run, now=later)
    assert seen.state == "old"
    assert "updated 11 min ago; see whether process 1 on elsewhere still works" in seen.note
    assert not seen.ended


def test_status_lists_the_runs_of_a_spec_that_have_not_started(call, tmp_path):
    spec = tmp_path / "prices.yaml"
    spec.write_text(f"base: quickstart\nrun: {{folder: {tmp_path}}}\ngrid: {{env.advice_cost: [0.1, 0.5]}}\n")
    started = RunFolder(tmp_path / "prices" / "advice_cost-0.1")
    ProgressFile(started, iterations=3).end(State.FAILED, "EngineError: gone")
    code, out, _ = call("status", spec)
    assert code == 0
    assert "2 runs: 1 failed, 1 waiting" in out
    assert "advice_cost-0.1: EngineError: gone; the same command resumes" in out
    code, out, _ = call("status", started, "--follow")
    assert (code, "1 runs: 1 failed" in out) == (0, True)


@pytest.mark.parametrize(("words", "said"), [(["."], "found none"), (["nothing.yaml"], "no such file")])
def test_what_is_no_run_is_refused_in_one_line(call, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("status", *words)
    assert (code, len(err.splitlines())) == (2, 1)
    assert said in err


RUNS = {"one": "running", "two": "waiting", "three": "failed", "four": "waiting"}


@pytest.fixture
def study(tmp_path):
    """A sweep of four runs: one trains, one has just been submitted, one has failed, one waits."""
    folder = SweepFolder(tmp_path / "study")
    folder.path.mkdir()
    listed = tuple(
        IndexedRun(run=run, state=state, overrides={"seed": run}, error="exit code 2" if state == "failed" else "")
        for run, state in RUNS.items()
    )
    sweep_index.write(folder, Index(sweep="study", parallel=2, updated="2026-01-01T00:00:00+00:00", runs=listed))
    for run in ("one", "two"):
        file = ProgressFile(folder.run(run), iterations=10)
        file.phase("collect")
        file.iteration(7, {"total_score": 0.8, "asked_share": 0.3})
    old = content(folder.run("two")) | {"updated": "2020-01-01T00:00:00+00:00", "state": "stopped"}
    folder.run("two").progress.write_text(json.dumps(old))
    return folder


def client_of(folder):
    def run(name, **more):
        return job(f"raysubmit_{name}", name, sweep=str(folder.path), folder=str(folder.run(name).path), **more)

    return FakeClient(
        job("raysubmit_0", "study", kind="sweep", folder=str(folder.path), start=1),
        run("one", start=2),
        run("two", start=1_800_000_000_000),
        run("three", start=4, status=JobStatus.FAILED, exit_code=2),
    )


@pytest.mark.parametrize("seen_from", ["here", "elsewhere"])
def test_a_sweep_on_a_cluster_is_a_table_of_its_runs(study, monkeypatch, seen_from):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    client = client_of(study)
    with dashboard() as (address, server):
        if seen_from == "elsewhere":  # then the cluster prints the files
            monkeypatch.setattr(Dashboard, "is_here", False)
            monkeypatch.setattr("launch.status.on_cluster.Path.is_dir", lambda _: False)
        found = look_at(Jobs(client, where="x").all(), "study", Dashboard(address))
        assert len(server.jobs) == (2 if seen_from == "elsewhere" else 0)
    assert {seen.name: seen.state for seen in found} == {
        "one": "running",
        "two": "starting",  # the file is of an earlier job
        "three": "failed",
        "four": "waiting",
    }
    one, _, three, four = found
    assert one.progress is not None
    assert (one.progress.done, one.progress.metrics["asked_share"]) == (7, 0.3)
    assert three.ended
    assert not four.ended


def test_a_sweep_that_is_about_to_start_is_one_line(tmp_path):
    client = FakeClient(job("raysubmit_0", "new", kind="sweep", folder=str(tmp_path / "new"), status=JobStatus.PENDING))
    [seen] = look_at(Jobs(client, where="x").all(), "new", Dashboard("http://127.0.0.1:1"))
    assert (seen.name, seen.state, seen.ended) == ("new", "pending", False)


def test_a_run_whose_job_has_ended_but_whose_file_goes_on_is_gone(study):
    client = client_of(study)
    client.jobs["raysubmit_one"].status = JobStatus.FAILED
    client.jobs["raysubmit_one"].exit_code = 137
    [seen] = look_at(Jobs(client, where="x").all(), "one", Dashboard("http://127.0.0.1:1"))
    assert (seen.state, seen.ended) == ("gone", True)
    assert seen.note == "job raysubmit_one has ended (FAILED, exit code 137); the same command resumes"
    client.jobs["raysubmit_three"].status = JobStatus.PENDING
    [seen] = look_at(Jobs(client, where="x").all(), "three", Dashboard("http://127.0.0.1:1"))
    assert (seen.state, seen.note) == ("pending", "job raysubmit_three")


def test_status_of_the_folder_of_a_sweep_lists_what_its_index_lists(call, study):
    code, out, _ = call("status", study)
    assert code == 0
    assert "4 runs: " in out
    assert [name for name in RUNS if name not in out] == []


def test_status_with_an_address_takes_a_name_and_no_overrides(call):
    code, _, err = call("status", "study", "run.folder=/mnt", "--address", "http://127.0.0.1:9")
    assert code == 2
    assert "--address takes a name" in err
    code, _, err = call("status", "study", "--address", "http://127.0.0.1:9")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "no Ray dashboard answers there" in err
