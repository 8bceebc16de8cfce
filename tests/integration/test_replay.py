"""`agile-ray replay` on real learners: it repeats, bit for bit, a run that was stopped, killed and resumed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from agile_ray import history
from agile_ray.history import Event
from tests.integration.conftest import BIN, ITERATIONS, Job, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def replay(job: Job, *words: str) -> tuple[str, Path]:
    """Run the command, which must succeed: what it said, and its folder."""
    command = [BIN / "agile-ray", "replay", job.run, *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, job.folder / "small-replay"


def repeated(folder: Path) -> list[int]:
    """Iterations that are the run's own to the last bit, losses included."""
    found = json.loads((folder / "replay.json").read_text())["iterations"]
    return [
        one["iteration"]
        for one in found
        if not one["differing"]
        and not one["credit_differing"]
        and len(one["losses"]) == 3
        and all(pair["run"] == pair["replay"] for pair in one["losses"].values())
    ]


def test_a_replay_repeats_its_run_also_when_it_is_resumed(job: Job) -> None:
    before = {path: path.stat().st_mtime_ns for path in job.run.rglob("*")}
    said, folder = replay(job)
    assert f"{ITERATIONS} iterations repeat {job.run}" in said
    assert repeated(folder) == list(range(1, ITERATIONS + 1))

    shutil.rmtree(folder / "checkpoints" / f"iteration-{ITERATIONS:05}")  # as if it had been killed before
    said, folder = replay(job)
    assert f"resumed after {ITERATIONS - 2} iterations" in said
    assert repeated(folder) == list(range(1, ITERATIONS + 1))
    lines = [line for line in history.read(folder / "history.jsonl") if line.event is Event.ITERATION]
    assert [line.iteration for line in lines] == list(range(1, ITERATIONS + 1))
    assert {path: path.stat().st_mtime_ns for path in job.run.rglob("*")} == before
