"""`agile-ray train`, end to end on real components: stopped, killed, resumed, evaluated, reported, and replayed."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from agile_ray.replay.comparison import compare, losses
from tests.chaos.checks import Expected, problems
from tests.chaos.processes import Family, Role, alive
from tests.integration.conftest import (
    BIN,
    EVALUATED,
    ITERATIONS,
    LANES,
    SESSIONS,
    STEPS,
    WAIT_S,
    Job,
    environment,
    new_job,
)

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


@pytest.mark.long
def test_a_run_that_is_stopped_during_imitation_goes_on_there(tmp_path: Path) -> None:
    job = new_job(tmp_path)
    process = job.start()
    job.wait_for(Event.IMITATION, 1, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "asked to stop" in said
    steps = len(job.lines(Event.IMITATION))
    assert 0 < steps < STEPS
    process = job.start()
    job.wait_for(Event.IMITATION, STEPS, process)
    process.kill()
    assert f"resumed after {steps} imitation steps" in process.communicate(timeout=200)[0]


def test_every_session_is_trained_exactly_once(job: Job) -> None:
    files = sorted((job.run / "segments").iterdir())
    assert [file.stem for file in files] == [f"iteration-{number:05}" for number in range(1, ITERATIONS + 1)]
    rows = [row for file in files for row in pq.read_table(file, columns=["stream", "position", "index"]).to_pylist()]
    sessions = {(row["stream"], row["position"]) for row in rows}
    assert len(sessions) == LANES * SESSIONS * ITERATIONS
    assert len(rows) == len({(row["stream"], row["position"], row["index"]) for row in rows})
    by_lane: dict[str, list[int]] = {}
    for row in rows:
        by_lane.setdefault(row["stream"], []).append(row["position"])
    for positions in by_lane.values():
        assert sorted(set(positions)) == list(range(min(positions), max(positions) + 1))
    first = [48 * lane // LANES for lane in range(LANES)]
    later = [0 for start in first if start + SESSIONS * ITERATIONS > 48]  # such a lane goes on with a stream of its own
    assert sorted(map(min, by_lane.values())) == sorted(first + later)
    assert [line.iteration for line in job.lines(Event.ITERATION)] == list(range(1, ITERATIONS + 1))
    assert [line.imitation_steps for line in job.lines(Event.IMITATION)] == list(range(1, STEPS + 1))


def test_the_learner_sees_the_ids_that_the_engine_sampled(job: Job) -> None:
    for line in job.lines(Event.ITERATION):  # other ids would have other logprobs
        assert line.metrics["behavior_gap_nats"] < 1e-4
    for file in (job.run / "segments").iterdir():
        for row in pq.read_table(file).to_pylist():
            written = [version for version, acted in zip(row["versions"], row["action_mask"], strict=True) if acted]
            assert set(written) == {int(file.stem.split("-")[1]) - 1}


def test_the_report_contains_every_documented_metric(job: Job) -> None:
    report = json.loads((job.run / "report.json").read_text())
    references = {"always_ask", "never_ask", "random", "non_adaptive", "ask_unless_search", "oracle"}
    assert references <= report["references"].keys()
    for name in ("sft", "sft_sampled", "ppo", "ppo_sampled"):
        assert report[name]["sessions"] == EVALUATED
    for entry in (report["sft"], report["ppo_sampled"], *report["references"].values()):
        assert {"asked_share", "asks_per_session", "accuracy", "total_score", "sessions", "ci95"} <= entry.keys()
    assert (report["seed"], report["advice_cost"]) == (0, 0.3)
    assert "<svg" in (job.run / "report.html").read_text() or "data:image" in (job.run / "report.html").read_text()


@pytest.mark.long
def test_evaluating_a_checkpoint_gives_what_its_run_reported(job: Job) -> None:
    output, checkpoint = job.folder / "again.json", job.run / "checkpoints" / "best"
    before = sorted(checkpoint.iterdir())
    words = [str(BIN / "agile-ray"), "evaluate", *job.words, "--policy", str(checkpoint), "--output", str(output)]
    subprocess.run(words, check=True, env=environment(), capture_output=True, timeout=400)
    again, reported = json.loads(output.read_text()), json.loads((job.run / "report.json").read_text())["ppo"]
    assert again.keys() >= reported.keys()
    assert {key: again[key] for key in reported} == reported
    assert sorted(checkpoint.iterdir()) == before


def replay(job: Job, *words: str) -> tuple[str, Path]:
    """Run the command, which must succeed; returns its output and the replay's folder."""
    command = [BIN / "agile-ray", "replay", job.run, *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, job.folder / "small-replay"


def repeated(folder: Path) -> list[int]:
    """Iterations that equal the run's bit for bit, losses included."""
    found = json.loads((folder / "replay.json").read_text())["iterations"]
    return [
        one["iteration"]
        for one in found
        if not one["differing"]
        and not one["credit_differing"]
        and len(one["losses"]) == 3
        and all(pair["run"] == pair["replay"] for pair in one["losses"].values())
    ]


@pytest.mark.long
def test_a_replay_repeats_its_run_though_that_was_resumed(job: Job) -> None:
    before = {path: path.stat().st_mtime_ns for path in job.run.rglob("*")}
    said, folder = replay(job)
    assert f"{ITERATIONS} iterations repeat {job.run}" in said
    assert repeated(folder) == list(range(1, ITERATIONS + 1))
    assert {path: path.stat().st_mtime_ns for path in job.run.rglob("*")} == before


@pytest.mark.long
def test_a_replay_that_was_interrupted_goes_on(job: Job) -> None:
    _, folder = replay(job)
    shutil.rmtree(folder / "checkpoints" / f"iteration-{ITERATIONS:05}")  # as if it had been killed before
    said, folder = replay(job)
    assert f"resumed after {STEPS} imitation steps and {ITERATIONS - 2} iterations" in said
    assert repeated(folder) == list(range(1, ITERATIONS + 1))
    lines = [line for line in history.read(folder / "history.jsonl") if line.event is Event.ITERATION]
    assert [line.iteration for line in lines] == list(range(1, ITERATIONS + 1))


@pytest.fixture(scope="module")
def struck(job: Job) -> Iterator[Struck]:
    """The run again under another name, a learner rank of which is killed after its first iteration."""
    run = Struck(job)
    try:
        run.wait_for(Event.ITERATION)
        ranks = run.family.members(Role.RANK)
        assert len(ranks) == 2
        ranks[-1].kill()
        run.wait_for(Event.RESUME)
        run.family.look()
        fresh = run.family.members(Role.RANK)
        assert len(fresh) == 2
        assert not {one.pid for one in fresh} & {one.pid for one in ranks}
        assert not any(map(alive, ranks))
        assert run.finish() == 0, run.log.read_text()
        assert run.family.left(within_s=ENDS_S) == []
        yield run
    finally:
        run.family.end()


@pytest.mark.long
def test_a_run_whose_rank_is_killed_goes_on_in_its_process(struck: Struck) -> None:
    [line] = [line for line in struck.log.read_text().splitlines() if "lost a learner rank" in line]
    assert "1 of 3 times" in line
    lines = history.read(struck.run.history)
    assert sum(line.counts.get("fleet/learner_restarts", 0) for line in lines) == 1
    assert len(struck.run.path.joinpath("run.json").read_text().split('"started"')) == 2  # one start
    assert problems(struck.run, Expected(iterations=ITERATIONS, sessions=LANES * SESSIONS * ITERATIONS)) == []


@pytest.mark.long
def test_a_deterministic_training_repeats_bit_for_bit_however_it_was_interrupted(job: Job, struck: Struck) -> None:
    first, second = RunFolder(job.run), struck.run
    ours, theirs = (losses(history.read(run.history)) for run in (first, second))
    assert ours == theirs
    for iteration in range(1, ITERATIONS + 1):
        found = compare(
            iteration, run=first, replay=second, run_losses=ours[iteration], replay_losses=theirs[iteration]
        )
        assert found.segments > 0
        assert found.differing.keys() <= {"receipts"}  # how long an expert took is not the same twice
        assert found.credit_differing == 0
    last = Path("checkpoints") / f"iteration-{ITERATIONS:05}" / "model.safetensors"
    assert (job.run / last).read_bytes() == (second.path / last).read_bytes()
