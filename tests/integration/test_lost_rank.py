"""A real learner rank is killed while a training runs: the same process goes on with fresh ranks."""

import subprocess
import time
from pathlib import Path

import pytest

from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from tests.chaos.checks import Expected, problems
from tests.chaos.processes import Family, Role, alive
from tests.integration.conftest import BIN, ITERATIONS, LANES, SESSIONS, WAIT_S, Job, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

ENDS_S = 60.0
"""Longest time in which everything that the run has started must be gone."""


class Struck:
    """A run of the same command as the small run's, under another name."""

    def __init__(self, job: Job) -> None:
        self.run, self.log = RunFolder(job.folder / "struck"), job.folder / "struck.log"
        words = [str(BIN / "agile-ray"), "train", *job.words, "run.name=struck"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=environment())
        (extensions := job.folder / "extensions").mkdir()
        self.family = Family(self.process.pid, compiles_in=extensions)

    def count(self, event: Event) -> int:
        return sum(line.event is event for line in history.read(self.run.history))

    def wait_for(self, event: Event) -> None:
        """Wait for the first line of an event."""
        end = time.monotonic() + WAIT_S
        while not self.count(event):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"no {event} after {WAIT_S} s: {self.log.read_text()}"
            self.family.look()
            time.sleep(0.2)

    def finish(self) -> int:
        """Wait for the end; returns the exit code."""
        end = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.log.read_text()
            self.family.look()
            time.sleep(0.5)
        assert self.process.returncode is not None
        return self.process.returncode


def test_a_run_whose_rank_is_killed_goes_on_and_ends_as_if_nothing_had_happened(job: Job) -> None:
    struck = Struck(job)
    try:
        struck.wait_for(Event.ITERATION)
        ranks = struck.family.members(Role.RANK)
        assert len(ranks) == 2
        ranks[-1].kill()
        struck.wait_for(Event.RESUME)
        struck.family.look()
        fresh = struck.family.members(Role.RANK)
        assert len(fresh) == 2
        assert not {one.pid for one in fresh} & {one.pid for one in ranks}
        assert not any(map(alive, ranks))
        code, said = struck.finish(), struck.log.read_text()
        assert code == 0, said
        assert struck.family.left(within_s=ENDS_S) == []
    finally:
        struck.family.end()
    [line] = [line for line in said.splitlines() if "lost a learner rank" in line]
    assert "1 of 3 times" in line
    lines = history.read(struck.run.history)
    assert sum(line.counts.get("fleet/learner_restarts", 0) for line in lines) == 1
    assert len(struck.run.path.joinpath("run.json").read_text().split('"started"')) == 2  # one start
    assert problems(struck.run, Expected(iterations=ITERATIONS, sessions=LANES * SESSIONS * ITERATIONS)) == []
    last = Path("checkpoints") / f"iteration-{ITERATIONS:05}" / "model.safetensors"
    assert (struck.run.path / last).read_bytes() == (job.run / last).read_bytes()
