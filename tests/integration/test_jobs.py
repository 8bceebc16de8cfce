"""Jobs of a Ray cluster with a token: a run that is stopped and resumed by name, and a sweep whose runs are jobs."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from agile_ray.record import history
from agile_ray.record.history import Event
from tests.integration.conftest import BIN, OVERRIDES, environment
from tests.integration.test_cluster import head

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
__all__ = ["head"]  # the fixture

SMALL = (
    *(word for word in OVERRIDES if not word.startswith(("run.name=", "loop.iterations="))),
    "learner.ranks=1",
)
LONG = "loop.iterations=400"
"""More than a run does before it is stopped, however long the commands before that take."""
PATIENCE_S = 400
SWEEP = """
base: quickstart
grid: {env.advice_cost: [0.1, 0.5]}
imitation_ignores: [env.advice_cost]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    make = ["model", "tiny", "--hidden", "64", "--layers", "1", "--output", str(folder)]
    subprocess.run([BIN / "agile-ray", *make], check=True, env=environment(), capture_output=True)
    return folder


@pytest.fixture
def agile_ray(head):
    """Run the command line with the cluster's address and token."""
    address, variables = head

    def run(*words, limit_s=PATIENCE_S):
        command = [BIN / "agile-ray", *map(str, words), "--address", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False, env=variables)

    return run


def wait_for(happens, said):
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline, said()
        time.sleep(0.5)


def counted(run: Path, event: Event) -> int:
    path = run / "history.jsonl"
    return sum(line.event is event for line in history.read(path)) if path.exists() else 0


def test_a_job_trains_to_its_report(agile_ray, model, tmp_path):
    words = ("submit", "quickstart", *SMALL, "run.name=whole", f"run.folder={tmp_path}", f"model.path={model}")
    done = agile_ray(*words, "loop.iterations=1", "imitation.sessions=32", "loop.evaluate_every=1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert (tmp_path / "whole" / "report.json").is_file()
    assert "finished" in agile_ray("status", "whole").stdout
    assert "SUCCEEDED" in agile_ray("jobs").stdout


@pytest.mark.long
def test_a_run_is_stopped_and_resumed_by_name(agile_ray, model, tmp_path):
    words = ("submit", "quickstart", *SMALL, "run.name=byname", f"run.folder={tmp_path}", f"model.path={model}")
    submitted = agile_ray(*words, LONG, "--no-follow")
    assert submitted.returncode == 0, submitted.stderr
    run = tmp_path / "byname"
    wait_for(lambda: counted(run, Event.ITERATION) >= 1, lambda: agile_ray("logs", "byname").stdout)

    doubled = agile_ray(*words, LONG)
    assert doubled.returncode == 2
    assert "run.name: job raysubmit_" in doubled.stderr
    assert "running" in agile_ray("status", "byname").stdout

    stopped = agile_ray("stop", "byname")
    assert stopped.returncode == 0, stopped.stderr
    assert "byname ended after" in stopped.stdout
    assert "asked to stop" in agile_ray("logs", "byname").stdout
    assert not (run / "report.json").exists()
    [line] = [line for line in agile_ray("jobs").stdout.splitlines() if line.startswith("byname ")]
    assert line.split()[1] == "STOPPED"
    assert "stopped" in agile_ray("status", "byname").stdout

    done, imitated = counted(run, Event.ITERATION), counted(run, Event.IMITATION)
    resumed = agile_ray(*words, f"loop.iterations={done + 1}")
    assert resumed.returncode == 0, resumed.stdout[-3000:] + resumed.stderr
    assert f"resumed after {imitated} imitation steps and " in resumed.stdout
    assert (run / "report.json").is_file()
    assert counted(run, Event.IMITATION) == imitated
    assert "SUCCEEDED" in agile_ray("jobs").stdout


@pytest.mark.long
def test_the_runs_of_a_sweep_are_jobs_that_pay_one_imitation(agile_ray, model, tmp_path):
    spec = tmp_path / "prices.yaml"
    spec.write_text(SWEEP)
    words = (
        "sweep",
        spec,
        *SMALL,
        "loop.iterations=2",
        f"run.folder={tmp_path}",
        f"model.path={model}",
        "--parallel",
        "2",
    )
    folder = tmp_path / "prices"
    runs = [folder / f"advice_cost-{price}" for price in ("0.1", "0.5")]
    assert agile_ray(*words, "--no-follow").returncode == 0
    wait_for(lambda: counted(runs[0], Event.IMITATION) >= 1, lambda: agile_ray("logs", "prices").stdout)
    stopped = agile_ray("stop", "prices", "--wait", "120")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr

    done = agile_ray(*words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    index = json.loads((folder / "index.json").read_text())
    assert [(run["state"], run["imitation"]) for run in index["runs"]] == [("finished", ""), ("finished", runs[0].name)]
    assert counted(runs[1], Event.IMITATION) == 0
    assert len(json.loads((folder / "sweep.json").read_text())["rows"]) == 2
    assert "2 runs: 2 finished" in agile_ray("status", "prices").stdout
    again = agile_ray(*words)
    assert again.returncode == 0
    assert again.stdout.count(": finished") == 2
