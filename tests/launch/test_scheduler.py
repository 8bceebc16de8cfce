"""Which run of a sweep starts when, what is tried again, and what a killed sweep finds. Nothing is trained."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ray.job_submission import JobStatus

from agile_ray.config_file import read_spec
from agile_ray.errors import ConfigError
from agile_ray.record import evaluations
from agile_ray.record.folder import RunFolder, SweepFolder
from launch.cluster.jobs import Jobs
from launch.run import shipped_configs, sweep_plan
from launch.status import progress_file, sweep_index
from launch.status.progress_file import ProgressFile, State
from launch.sweeps import scheduler, sweep
from launch.sweeps.processes import Processes
from launch.sweeps.ray_jobs import RayJobs
from launch.sweeps.scheduler import Ending, Scheduler
from launch.sweeps.submitted import submit_sweep
from tests.conftest import one_line
from tests.fakes.job_client import FakeClient
from tests.fakes.played import played

SPEC = """
base: quickstart
grid: {seed: [0, 1], env.advice_cost: [0.1, 0.5]}
imitation_ignores: [env.advice_cost]
"""
FIRST, SECOND, THIRD, FOURTH = (f"seed-{seed}_advice_cost-{price}" for seed in (0, 1) for price in (0.1, 0.5))


def imitates(run):
    run.sft.path.mkdir(parents=True)
    evaluations.keep(run, "sft_sampled", played("ppo"))


def finishes(run):
    run.path.mkdir(parents=True, exist_ok=True)
    run.report.write_text("{}")


class Training:
    """A training whose next looks the test sets: None, an Ending, or a function of its run's folder."""

    def __init__(self, job, looks):
        self.run, self.looks, self.asked, self.name = RunFolder.of(job.config), list(looks), False, "it"

    def ending(self):
        if self.asked:
            return Ending(code=143)
        look = self.looks.pop(0) if self.looks else None
        if callable(look):
            look(self.run)
            return Ending(code=0) if self.run.is_finished else None
        return look

    def stop(self):
        self.asked = True

    kill = stop


class FakeWorkers:
    poll_s = 1.0

    def __init__(self, looks, found=()):
        self.looks, self.log, self.there = looks, [], dict(found)

    def found(self, jobs):
        return self.there

    def start(self, job):
        name = job.config.run.name
        self.log.append(name)
        return Training(job, self.looks(name, self.log.count(name)))


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        assert self.now < 10_000, "the sweep does not end"


@pytest.fixture
def jobs(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(SPEC)
    return sweep_plan.plan(path, sweep_plan.read_plan(path), [f"run.folder={tmp_path}"])


def scheduled(jobs, workers, *, parallel=2, retries=3, changed=lambda _: None, stopping=lambda: False):
    clock = Clock()
    made = Scheduler(
        jobs,
        workers,
        parallel=parallel,
        retries=retries,
        ignores=["env.advice_cost"],
        changed=changed,
        monotonic=clock,
        sleep=clock.sleep,
    )
    return made.run(stopping), clock


def test_runs_that_imitate_alike_wait_for_the_one_that_imitates_and_others_start_meanwhile(jobs):
    workers = FakeWorkers(lambda name, _: [None, imitates, None, finishes] if name in (FIRST, THIRD) else [finishes])
    seen = []
    failed, _ = scheduled(jobs, workers, changed=lambda all: seen.append({one.name: one.imitation for one in all}))
    assert failed == []
    assert workers.log == [FIRST, THIRD, SECOND, FOURTH]
    assert seen[-1] == {FIRST: "", SECOND: FIRST, THIRD: "", FOURTH: THIRD}
    assert all(job.finished for job in jobs)


def test_a_free_place_waits_rather_than_pay_an_imitation_twice(jobs):
    at_second = []

    def looks(name, _):
        if name == SECOND:
            at_second.append(RunFolder.of(jobs[0].config).sft.path.exists())
        return [None] * 5 + [imitates] + [finishes] if name in (FIRST, THIRD) else [finishes]

    failed, _ = scheduled(jobs[:2], FakeWorkers(looks), parallel=2)
    assert (failed, at_second) == ([], [True])


def test_what_machines_did_is_tried_again_with_growing_pauses_within_a_budget(jobs):
    workers = FakeWorkers(lambda name, count: [Ending(code=None if count % 2 else 137)])
    failed, clock = scheduled(jobs[:1], workers, retries=3)
    assert workers.log == [FIRST] * 4
    assert failed == [f"{FIRST} (exit code 137, after 4 starts)"]
    assert 70 <= clock.now < 80  # 10 + 20 + 40 s of pauses
    workers = FakeWorkers(lambda name, count: [Ending(code=143)] if count == 1 else [finishes])
    assert scheduled(jobs[:1], workers)[0] == []


def test_a_run_that_was_lost_while_it_imitated_goes_on_and_the_others_wait_for_it(jobs):
    def begins(run):
        (run.checkpoints / "imitation-00002").mkdir(parents=True)

    def looks(name, count):
        if name == SECOND:
            return [finishes]
        return [begins, Ending(code=137)] if count == 1 else [imitates, finishes]

    workers = FakeWorkers(looks)
    failed, _ = scheduled(jobs[:2], workers)
    assert (failed, workers.log) == ([], [FIRST, FIRST, SECOND])


def failing(error, code=1):
    def look(run):
        ProgressFile(run, iterations=1).end(State.FAILED, error)

    return [look, Ending(code=code)]


@pytest.mark.parametrize(
    ("looks", "starts", "said"),
    [
        (failing("LearnerError: rank 1 died"), 3, "LearnerError: rank 1 died; exit code 1, after 3 starts"),
        (failing("DeadlineError: no room"), 3, "DeadlineError: no room; exit code 1, after 3 starts"),
        (failing("StarvedError: all sessions failed"), 1, "StarvedError: all sessions failed; exit code 1"),
        (failing("ValueError: shape"), 1, "ValueError: shape; exit code 1"),
        ([Ending(code=2)], 1, "exit code 2"),
        ([Ending(code=1)], 1, "exit code 1"),
        ([Ending(code=0)], 1, "exit code 0"),
        ([Ending(code=None, asked=True)], 1, "asked to end"),
        ([Ending(code=130)], 1, "asked to end"),
    ],
)
def test_what_data_or_configuration_did_is_reported_at_once(jobs, looks, starts, said):
    workers = FakeWorkers(lambda *_: looks)
    failed, _ = scheduled(jobs[:1], workers, retries=2)
    assert (len(workers.log), failed) == (starts, [f"{FIRST} ({said})"])


def test_a_cluster_that_takes_no_job_is_asked_again(jobs):
    class Busy(FakeWorkers):
        def start(self, job):
            started = super().start(job)
            if len(self.log) < 3:
                raise scheduler.DeadlineError("handing the job over took longer than 300 s")
            return started

    workers = Busy(lambda *_: [finishes])
    failed, clock = scheduled(jobs[:1], workers)
    assert (failed, workers.log) == ([], [FIRST] * 3)
    assert clock.now >= 30  # 10 + 20 s of pauses


def test_an_error_of_an_earlier_start_does_not_count(jobs):
    run = RunFolder.of(jobs[0].config)
    ProgressFile(run, iterations=1).end(State.FAILED, "StarvedError: long ago")
    old = json.loads(run.progress.read_text()) | {"updated": "2020-01-01T00:00:00+00:00"}
    run.progress.write_text(json.dumps(old))
    failed, _ = scheduled(jobs[:1], FakeWorkers(lambda name, count: [Ending(code=137)]), retries=0)
    assert failed == [f"{FIRST} (exit code 137, after 1 starts)"]


def test_a_run_that_is_running_already_is_waited_for_and_a_finished_one_is_left_alone(jobs, capsys):
    finishes(RunFolder.of(jobs[0].config))
    imitates(RunFolder.of(jobs[0].config))
    workers = FakeWorkers(lambda name, _: [imitates, finishes] if name == THIRD else [finishes])
    workers.there = {SECOND: Training(jobs[1], [None, None, finishes])}
    failed, _ = scheduled(jobs, workers)
    assert (failed, workers.log) == ([], [THIRD, FOURTH])
    out = capsys.readouterr().out
    assert f"{FIRST}: finished\n{SECOND}: runs already, as it\n" in out


def test_a_sweep_that_is_asked_to_end_passes_it_on_and_waits(jobs):
    workers = FakeWorkers(lambda *_: [])
    states, asks = [], iter([False, False, True])
    scheduled(jobs, workers, changed=lambda all: states.append([one.state for one in all]), stopping=lambda: next(asks))
    assert workers.log == [FIRST, THIRD]
    assert states[-1] == ["waiting"] * 4


def test_a_training_that_does_not_end_is_killed(jobs, monkeypatch):
    class Deaf(Training):
        def stop(self):
            self.deaf = True

        def kill(self):
            self.killed = True

        def ending(self):
            return None

    deaf = Deaf(jobs[0], [])
    asks = iter([False, True])
    _, clock = scheduled(jobs[:1], FakeWorkers(lambda *_: [], {FIRST: deaf}), stopping=lambda: next(asks))
    assert deaf.killed
    assert clock.now > scheduler.STOP_S


def test_a_process_of_a_killed_sweep_is_found_by_its_progress(jobs, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        ProgressFile(RunFolder.of(jobs[0].config), iterations=1).begin()
        run = RunFolder.of(jobs[0].config)
        told = progress_file.read(run)
        import psutil

        started = psutil.Process(child.pid).create_time()
        content = json.loads(run.progress.read_text()) | {"pid": child.pid, "process_started": started}
        run.progress.write_text(json.dumps(content))
        assert told is not None
        found = Processes(apart=True).found(jobs)
        assert list(found) == [FIRST]
        assert found[FIRST].ending() is None
        found[FIRST].stop()
        child.wait(timeout=110)
        assert found[FIRST].ending() == Ending(code=None)
        assert Processes(apart=True).found(jobs) == {}
    finally:
        child.kill()
        child.wait(timeout=110)


def test_a_process_prints_into_the_folder_of_its_run(jobs, tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\necho "$@"; echo wrong >&2; exit 7\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    clock = scheduler.time.monotonic() + 100
    started = Processes(apart=True).start(jobs[0])
    while (ending := started.ending()) is None and scheduler.time.monotonic() < clock:
        scheduler.time.sleep(0.05)
    assert ending == Ending(code=7)
    printed = RunFolder.of(jobs[0].config).training_log.read_text()
    assert printed.startswith("-m launch.main train quickstart ")
    assert printed.endswith("wrong\n")


@pytest.fixture
def cluster(monkeypatch):
    client = FakeClient()
    monkeypatch.setattr(Jobs, "at", classmethod(lambda cls, address: Jobs(client, where=address)))
    monkeypatch.setattr(Jobs, "here", classmethod(lambda cls, address: Jobs(client, where="here")))
    monkeypatch.setattr("launch.cluster.job.build", lambda _, package: package.mkdir())
    return client


def test_runs_are_jobs_that_are_found_again_and_not_doubled(cluster, jobs, tmp_path):
    folder = SweepFolder(tmp_path / "prices")
    environment = {"working_dir": "gcs://_ray_pkg_1.zip", "env_vars": {"A": "b", "RAY_JOB_STOP_WAIT_TIME_S": "75"}}
    there = Jobs(cluster, where="here")
    workers = RayJobs(there, sweep=folder, runtime_env=environment, commit="abc")
    started = workers.start(jobs[0])
    assert started.ending() is None
    [sent] = cluster.jobs.values()
    assert sent.runtime_env == environment | {"env_vars": {"A": "b", "RAY_JOB_STOP_WAIT_TIME_S": "30"}}
    assert sent.metadata["sweep"] == str(folder.path)
    assert sent.metadata["folder"] == str(jobs[0].config.run_folder)
    spec = folder.spec(FIRST)
    assert f"train {spec}" in sent.entrypoint
    assert shipped_configs.read(str(spec)).digest == jobs[0].config.digest
    assert workers.start(jobs[0]).name == started.name
    assert len(cluster.jobs) == 1
    again = RayJobs(there, sweep=folder, runtime_env=environment, commit="abc").found(jobs)
    assert {name: one.name for name, one in again.items()} == {FIRST: "job raysubmit_0"}
    again[FIRST].stop()
    assert again[FIRST].ending() == Ending(code=None, asked=True)
    assert workers.found(jobs) == {}
    sent.status, sent.exit_code = JobStatus.FAILED, 2
    assert started.ending() == Ending(code=2)


def test_a_dashboard_that_is_silent_for_a_while_does_not_end_a_run(cluster, jobs, tmp_path, monkeypatch):
    workers = RayJobs(Jobs(cluster, where="x"), sweep=SweepFolder(tmp_path), runtime_env={}, commit="abc")
    started = workers.start(jobs[0])
    cluster.fails = RuntimeError("busy")
    assert started.ending() is None
    monkeypatch.setattr("launch.sweeps.ray_jobs.SILENT_S", -1.0)
    with pytest.raises(scheduler.AgileError, match="asking for job raysubmit_0 failed"):
        started.ending()


def submitted(jobs, tmp_path, **changed):
    words = {"address": "http://x", "project": Path(), "parallel": 2, "retries": 3, "follow": False, "variables": {}}
    sheet = sweep_plan.read_plan(tmp_path / "prices.yaml")
    return submit_sweep(sheet, jobs, [f"run.folder={tmp_path}"], **words | changed)


def test_a_sweep_is_one_job_and_the_same_command_again_finds_it(cluster, tmp_path, capsys):
    path = tmp_path / "prices.yaml"
    path.write_text(SPEC + "model: {path: /mnt/models/tiny}\n")
    sheet = sweep_plan.read_plan(path)
    runs = sweep_plan.plan(path, sheet, [f"run.folder={tmp_path}"])
    assert submitted(runs, tmp_path) == 0
    [sent] = cluster.jobs.values()
    assert sent.entrypoint.endswith(f"sweep submitted/prices.yaml run.folder={tmp_path} --parallel 2 --retries 3")
    assert (sent.metadata["agile_ray"], sent.metadata["folder"]) == ("sweep", str(tmp_path / "prices"))
    assert sent.runtime_env["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "75"}
    capsys.readouterr()
    assert submitted(runs, tmp_path) == 0
    assert len(cluster.jobs) == 1
    assert capsys.readouterr().out == "sweep prices runs already, as job raysubmit_0\n"
    longer = sweep_plan.plan(path, sheet, [f"run.folder={tmp_path}", "loop.iterations=50"])
    with pytest.raises(ConfigError, match="job raysubmit_0 trains other configurations"):
        submitted(longer, tmp_path)
    sent.status = JobStatus.FAILED
    assert submitted(runs, tmp_path) == 0
    assert len(cluster.jobs) == 2


@pytest.mark.parametrize("command", ["submit", "sweep"])
def test_a_job_is_told_by_its_environment_which_programs_follow_it(call, cluster, tmp_path, command):
    path = tmp_path / "prices.yaml"
    path.write_text((SPEC if command == "sweep" else "base: quickstart\n") + "model: {path: /mnt/models/tiny}\n")
    words = ("--address", "http://x", "--no-follow", "--track", "mlflow", "--track", "wandb", "--env-var", "A=b")
    code, _, err = call(command, path, f"run.folder={tmp_path}", *words)
    assert code == 0, err
    [sent] = cluster.jobs.values()
    told = {name: value for name, value in sent.runtime_env["env_vars"].items() if name in ("AGILE_TRACK", "A")}
    assert told == {"AGILE_TRACK": "mlflow wandb", "A": "b"}


def test_a_run_of_a_submitted_sweep_is_told_which_programs_follow_it(cluster, tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(SPEC)
    jobs = sweep_plan.plan(path, sweep_plan.read_plan(path), [f"run.folder={tmp_path}"], track=["wandb"])
    workers = RayJobs(Jobs(cluster, where="x"), sweep=SweepFolder(tmp_path), runtime_env={}, commit="abc")
    workers.start(jobs[0])
    [sent] = cluster.jobs.values()
    assert sent.entrypoint.endswith(".yaml --track wandb")


def test_a_sweep_with_unshared_folders_is_refused_before_the_cluster_is_asked(call, tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(SPEC)
    code, _, err = call("sweep", path, "--parallel", "2", "--address", "http://127.0.0.1:9")
    assert code == 2
    assert "run.folder=runs/prices, model.path=models/tiny: on a cluster a path must be absolute" in one_line(err)


@pytest.mark.parametrize("name", sorted(shipped_configs.shipped_in(shipped_configs.SWEEPS)))
def test_a_spec_that_is_sent_as_one_file_means_the_same(name, tmp_path):
    path = shipped_configs.find(name, folder=shipped_configs.SWEEPS)
    sheet = sweep_plan.read_plan(path)
    copy = tmp_path / f"{name}.yaml"
    copy.write_text(sheet.yaml())
    again = sweep_plan.plan(copy, read_spec(copy))
    assert [job.config.digest for job in again] == [job.config.digest for job in sweep_plan.plan(path, sheet)]


def test_the_spelling_of_values_survives_the_way_to_the_cluster(tmp_path):
    path = tmp_path / "names.yaml"
    path.write_text(
        "base: quickstart\ngrid: {run.name: [007, 1e3], ppo.clip: [0.10], ppo.early_stop_kl: [null]}\n"
        "compare: {key: run.name, to: 007}\nloop: {iterations: '${loop.checkpoint_every}'}\n"
    )
    copy = tmp_path / "sent" / "names.yaml"
    copy.parent.mkdir()
    copy.write_text(sweep_plan.read_plan(path).yaml())
    here, there = (sweep_plan.plan(one, sweep_plan.read_plan(one)) for one in (path, copy))
    assert [job.words[2:] for job in there] == [job.words[2:] for job in here]
    assert [(job.config.run.name, job.config.loop.iterations) for job in there] == [("007", 7), ("1e3", 7)]


@pytest.mark.parametrize("keys", ["[ppo.clip]", "[advice_cost]"])
def test_imitation_can_ignore_only_keys_that_the_sweep_varies(call, tmp_path, keys):
    (tmp_path / "bad.yaml").write_text(SPEC.replace("[env.advice_cost]\n", f"{keys}\n"))
    code, _, err = call("sweep", tmp_path / "bad.yaml")
    assert code == 2
    assert "imitation_ignores: each is a key of grid or runs, found" in one_line(err)


def test_the_index_lists_every_run_and_its_state(jobs, tmp_path, monkeypatch):
    sheet = sweep_plan.read_plan(tmp_path / "prices.yaml")
    workers = FakeWorkers(lambda name, _: [imitates, finishes] if name == FIRST else [Ending(code=2)])
    monkeypatch.setattr(sweep, "_workers", lambda *_: workers)
    monkeypatch.setattr(FakeWorkers, "poll_s", 0.01)
    assert sweep._train("prices", sheet, jobs, parallel=1, retries=0) == [
        f"{name} (exit code 2)" for name in (SECOND, THIRD, FOURTH)
    ]
    index = sweep_index.read(SweepFolder(tmp_path / "prices"))
    assert index is not None
    assert (index.sweep, index.parallel) == ("prices", 1)
    assert datetime.fromisoformat(index.updated) <= datetime.now(UTC)
    assert [(run.run, run.state, run.imitation, run.error) for run in index.runs] == [
        (FIRST, "finished", "", ""),
        (SECOND, "failed", FIRST, "exit code 2"),
        (THIRD, "failed", "", "exit code 2"),
        (FOURTH, "failed", "", "exit code 2"),
    ]
