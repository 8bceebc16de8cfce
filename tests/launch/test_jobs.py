"""Jobs by the names of their runs: listed, printed, stopped; and what is said where no cluster answers."""

import json
import secrets
import socket
import threading
import time

import pytest
from ray.job_submission import JobStatus

from agile_ray.errors import AgileError, ConfigError, DeadlineError
from agile_ray.record.provenance import git_state
from launch.cluster import dashboard as dashboards
from launch.cluster import job as submitted
from launch.cluster import jobs as cluster_jobs
from launch.cluster.jobs import Jobs, Resources, latest
from launch.cluster.package import INSTALLED, build
from launch.cluster.stopping import stop
from launch.commands.jobs.submit import custom_resources, variables
from launch.run.shipped_configs import read
from tests.conftest import one_line
from tests.fakes.dashboard import dashboard
from tests.fakes.job_client import FakeClient, job


@pytest.fixture
def cluster(monkeypatch):
    """A cluster at any address, whose jobs the test sets."""
    client = FakeClient()
    monkeypatch.setattr(Jobs, "at", classmethod(lambda cls, address: Jobs(client, where=f"--address {address}")))
    return client


def jobs(*given):
    return Jobs(FakeClient(*given), where="--address http://x")


def test_only_jobs_of_this_project_are_listed_the_latest_first():
    other = job("raysubmit_other", "x")
    other.metadata = {"job_name": "etl"}
    found = jobs(job("raysubmit_a", "one", start=5), other, job("raysubmit_b", "two", start=9)).all()
    assert [(one.id, one.run, one.folder, one.state) for one in found] == [
        ("raysubmit_b", "two", "/mnt/runs/two", "RUNNING"),
        ("raysubmit_a", "one", "/mnt/runs/one", "RUNNING"),
    ]


def test_a_name_means_the_job_that_has_not_ended_or_else_the_latest():
    client = FakeClient(
        job("raysubmit_1", "one", start=1, status=JobStatus.FAILED),
        job("raysubmit_2", "one", start=2),
        job("raysubmit_3", "one", start=3, status=JobStatus.STOPPED),
    )
    found = Jobs(client, where="x")
    assert latest(found.all(), "one").id == "raysubmit_2"
    assert latest(found.all(), "raysubmit_1").id == "raysubmit_1"
    client.jobs["raysubmit_2"].status = JobStatus.SUCCEEDED
    assert latest(found.all(), "/mnt/runs/one").id == "raysubmit_3"


def test_a_name_of_several_running_jobs_or_of_none_is_refused():
    found = jobs(job("raysubmit_1", "one", folder="/a/one"), job("raysubmit_2", "one", folder="/b/one")).all()
    with pytest.raises(ConfigError, match=r"name one by its id: raysubmit_\d in /./one, raysubmit_\d in /./one"):
        latest(found, "one")
    with pytest.raises(
        ConfigError, match="won: no job of the cluster has this name, id or folder; the nearest are one"
    ):
        latest(found, "won")
    with pytest.raises(ConfigError, match="agile-ray has submitted none to it"):
        latest([], "won")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


LAST = "112.4 min  asked to stop: checkpoint after 4 iterations"


def test_stopping_waits_until_the_run_has_ended_and_repeats_what_it_said_last(capsys):
    client = FakeClient(
        job("raysubmit_1", "one", stops_after=3, log=f"  0.1 min  a\n{LAST}\nlibrary: something leaked\n\n")
    )
    clock = Clock()
    stop(Jobs(client, where="x"), "one", wait_s=60, monotonic=clock, sleep=clock.sleep)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "job raysubmit_1: one is asked to end"
    assert last == f"job raysubmit_1: one ended after 2 s: {LAST.strip()}"


def test_stopping_a_sweep_stops_its_job_first_and_then_its_runs(capsys):
    runs = [job(f"raysubmit_{n}", f"seed-{n}", sweep="/mnt/runs/study", start=n) for n in (2, 3, 4)]
    runs[2].status = JobStatus.SUCCEEDED
    other = job("raysubmit_9", "seed-2", folder="/other/seed-2", start=9)
    client = FakeClient(job("raysubmit_1", "study", kind="sweep", start=1), *runs, other)
    clock = Clock()
    stop(Jobs(client, where="x"), "study", wait_s=60, monotonic=clock, sleep=clock.sleep)
    assert capsys.readouterr().out.startswith("job raysubmit_1: study is asked to end\n")
    assert [one.id for one in client.jobs.values() if one.asked] == ["raysubmit_1", "raysubmit_2", "raysubmit_3"]


def test_the_runs_of_a_sweep_whose_own_job_has_ended_are_stopped(capsys):
    client = FakeClient(
        job("raysubmit_1", "study", kind="sweep", status=JobStatus.FAILED),
        job("raysubmit_2", "seed-2", sweep="/mnt/runs/study"),
    )
    stop(Jobs(client, where="x"), "study", wait_s=0)
    assert capsys.readouterr().out == "job raysubmit_2: seed-2 is asked to end\n"


def test_a_job_that_does_not_end_in_time_is_named_and_one_that_has_ended_is_no_job_to_stop():
    client = FakeClient(job("raysubmit_1", "one", stops_after=10**6))
    clock = Clock()
    with pytest.raises(DeadlineError, match=r"must end within 5 s, but these have not: raysubmit_1 \(one, RUNNING\)"):
        stop(Jobs(client, where="x"), "one", wait_s=5, monotonic=clock, sleep=clock.sleep)
    client.jobs["raysubmit_1"].status = JobStatus.STOPPED
    with pytest.raises(ConfigError, match="one: its job has ended"):
        stop(Jobs(client, where="x"), "one", wait_s=5)


def test_a_cluster_that_stops_answering_or_refuses_is_one_line():
    client = FakeClient(job("raysubmit_1", "one"))
    found = Jobs(client, where="--address http://x")
    with pytest.raises(
        AgileError, match=r"http://x: asking for job raysubmit_7 failed \(Request failed with status code"
    ):
        found.get("raysubmit_7")
    client.fails = ConnectionError("refused")
    with pytest.raises(ConfigError, match="--address http://x: no Ray dashboard answers there"):
        found.all()


def test_a_call_without_an_answer_ends_by_its_deadline():
    ends, ended = threading.Event(), []
    with pytest.raises(DeadlineError, match=r"^--address http://x: connecting took longer than 0\.2 s"):
        cluster_jobs.within(0.2, "--address http://x: connecting", lambda: ended.append(ends.wait(100)))
    assert ended == []
    ends.set()


COMMANDS = [
    ("jobs",),
    ("logs", "one"),
    ("stop", "one"),
    ("submit", "quickstart", "run.folder=/mnt/runs", "model.path=/mnt/models/tiny"),
]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=words[0], marks=[] if words[0] in ("jobs", "submit") else pytest.mark.long)
        for words in COMMANDS
    ],
)
def test_no_cluster_a_silent_one_and_a_wrong_token_are_one_line_within_seconds(call, monkeypatch, words):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    code, _, err = call(*words)
    assert code == 2
    assert "the cluster's dashboard is needed: give --address" in one_line(err)
    with socket.create_server(("127.0.0.1", 0)) as silent, dashboard(token=secrets.token_hex(8)) as (asks, _server):
        begin = time.process_time()
        for address, said in (
            ("http://127.0.0.1:9", "no Ray dashboard answers there"),
            (f"http://127.0.0.1:{silent.getsockname()[1]}", "answers within 3 s, nothing came"),
            (asks, "token refused; set RAY_AUTH_MODE=token"),
        ):
            code, _, err = call(*words, "--address", address)
            assert code == 2
            assert f"--address {address}: " in one_line(err)
            assert said in err
        assert time.process_time() - begin + dashboards.ANSWER_S < 3 * 5


def test_the_list_shows_runs_sweeps_and_exit_codes(call, cluster):
    cluster.jobs = {
        one.id: one
        for one in (
            job("raysubmit_1", "study", kind="sweep", start=1_700_000_000_000),
            job("raysubmit_2", "seed-0", sweep="/mnt/runs/study", status=JobStatus.FAILED, exit_code=2, start=2),
        )
    }
    code, out, _ = call("jobs", "--address", "http://x")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[:3] for line in lines] == [
        ["run", "state", "job"],
        ["study", "(sweep)", "RUNNING"],
        ["seed-0", "FAILED", "(2)"],
    ]


def test_ended_jobs_beyond_the_latest_are_counted(call, cluster):
    for number in range(25):
        cluster.jobs[f"raysubmit_{number}"] = job(
            f"raysubmit_{number}", f"run-{number}", status=JobStatus.SUCCEEDED, start=number + 1
        )
    _, out, _ = call("jobs", "--address", "http://x")
    assert out.splitlines()[1].startswith("run-24 ")
    assert out.splitlines()[-1] == "5 earlier ones have ended; --all lists them"
    assert len(call("jobs", "--address", "http://x", "--all")[1].splitlines()) == 26


def test_logs_prints_and_follows(call, cluster):
    cluster.jobs["raysubmit_1"] = job("raysubmit_1", "one", log="first\nlast\n", status=JobStatus.FAILED, exit_code=143)
    assert call("logs", "one", "--address", "http://x") == (0, "first\nlast\n", "")
    assert call("logs", "one", "--follow", "--address", "http://x") == (143, "first\nlast\n", "")


def test_a_job_says_what_it_is_and_has_time_to_end(cluster, monkeypatch, tmp_path):
    monkeypatch.setattr(submitted, "build", lambda _, package: package.mkdir())
    config = read("shop", [f"run.folder={tmp_path}"])
    words = {"address": "http://x", "project": INSTALLED, "follow": False}
    resources = Resources(cpus=1.0, memory=2**30, custom={"head": 0.1})
    assert submitted.submit(config, **words, variables={"HF_HOME": "/mnt/a=b"}, resources=resources) == 0
    [sent] = cluster.jobs.values()
    assert sent.runtime_env["env_vars"] == {"HF_HOME": "/mnt/a=b", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
    assert sent.entrypoint.endswith("exec python -m launch.main train submitted.yaml")
    assert sent.resources == {
        "entrypoint_num_cpus": 1.0,
        "entrypoint_num_gpus": None,
        "entrypoint_memory": 2**30,
        "entrypoint_resources": {"head": 0.1},
    }
    told = {key: sent.metadata[key] for key in ("agile_ray", "run", "folder", "sweep", "config_hash")}
    assert told == {
        "agile_ray": "run",
        "run": config.run.name,
        "folder": str(config.run_folder),
        "sweep": "",
        "config_hash": config.digest,
    }
    with pytest.raises(ConfigError, match=r"run.name: job raysubmit_0 trains in .* \(RUNNING\)"):
        submitted.submit(config, **words)


def test_the_time_to_end_of_the_user_is_kept():
    assert submitted.stoppable({"RAY_JOB_STOP_WAIT_TIME_S": "5"}, 30) == {"RAY_JOB_STOP_WAIT_TIME_S": "5"}


def test_an_address_that_is_given_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:2")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with dashboard() as (address, server):
        server.answers["/api/jobs/"] = []
        assert Jobs.at(address).all() == []
    assert cluster_jobs.os.environ["RAY_API_SERVER_ADDRESS"] == "http://elsewhere:2"


def test_the_package_of_a_checkout_and_of_an_installation_register_the_weight_transfer(tmp_path):
    build(INSTALLED, tmp_path / "checkout")
    copy = tmp_path / "installed"
    copy.mkdir()
    for name in ("agile_ray", "envs", "rollout", "learner", "configs", "launch"):
        (copy / name).symlink_to(INSTALLED / name)
    build(copy, tmp_path / "thin")
    for package in (tmp_path / "checkout", tmp_path / "thin"):
        [described] = package.glob("agile_ray-*.dist-info")
        points = (described / "entry_points.txt").read_text()
        assert "[vllm.general_plugins]\nagile_ray = rollout.weights.plugin:register" in points.replace("\n\n", "\n")
        assert (package / "configs" / "quickstart.yaml").is_file()
        assert list((package / "launch" / "report" / "page" / "templates").iterdir())
        assert not list(package.rglob("__pycache__"))
    assert git_state(tmp_path / "checkout") == git_state(INSTALLED)
    with pytest.raises(ConfigError, match="a checkout of agile-ray has the packages"):
        build(tmp_path, tmp_path / "none")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["HF_HOME"], "must be NAME=VALUE, such as HF_HOME=/mnt/hf, found HF_HOME"),
        (["2X=1"], "found 2X=1"),
        (["A=1", "A=2"], "--env-var A: given twice"),
    ],
)
def test_a_variable_that_is_none_is_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        variables(given)


def test_variables_may_be_empty_and_may_contain_an_equals_sign():
    assert variables(["A=", "B=c=d"]) == {"A": "", "B": "c=d"}


@pytest.mark.parametrize("text", ["head", "[1]", '{"head": "1"}', '{"head": true}', '{"head": 0}', "{}"])
def test_resources_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="must be a JSON object of numbers above 0"):
        custom_resources(text)
    assert custom_resources(json.dumps({"head": 1, "rack": 0.5})) == {"head": 1.0, "rack": 0.5}
