"""The checks find what a disturbed run could have broken, on prepared run folders."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agile_ray.agent.lane import Lane
from agile_ray.config import Credit
from agile_ray.credit.assign import CreditAssigner
from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from agile_ray.record.ledger import audit
from agile_ray.record.receipts import Journals
from agile_ray.record.recorder import RunRecorder
from agile_ray.segments import cut
from agile_ray.types import Receipt, RunState, Update
from tests.chaos.checks import CHECKS, Expected, problems
from tests.fakes.parts import zeros
from tests.fakes.worlds import ASKS, PREDICTS, Says, SmallStream, question, rules

ITERATIONS, EACH = 3, 2
EXPECTED = Expected(iterations=ITERATIONS, sessions=ITERATIONS * EACH, interval=(0.0, 1.0))
UPDATE = Update(tokens=9, padding=0.0, seconds=1.0, metrics={})
RECEIPT = Receipt(key="train/0#9#0", price=300, source="gold", latency_s=0.1, advice="yes", answer="yes")


def record(run: RunFolder, *, lag: int = 0, iterations: int = ITERATIONS, each: int = EACH) -> None:
    """A finished run: in each iteration one lane plays this many sessions, of which every other one asks."""
    lane = Lane(SmallStream(*[question(n, "does it rust ?") for n in range(iterations * each)]), rules())
    recorder, assigner = RunRecorder(run), CreditAssigner(Credit(mode="none"))
    for number in range(1, iterations + 1):
        version = max(0, number - 1 - lag)
        sessions = [asyncio.run(lane.play(Says(*turns, version=version))) for turns in (ASKS, PREDICTS) * (each // 2)]
        segments = [segment for session in sessions for segment in cut(session)]
        assigned = assigner.assign(sessions, segments, [zeros(segment) for segment in segments], [])
        state = RunState(imitation_steps=0, iteration=number, version=number)
        recorder.iteration(state, sessions=sessions, assigned=assigned, update=UPDATE)
    recorder.close()
    report(run)


def report(run: RunFolder, *, total: float = 0.5) -> None:
    books = audit(run, history.read(run.history))
    accounts = {
        name: {"asks": getattr(books, name).asks, "charged": getattr(books, name).charged}
        for name in ("trained", "failed", "abandoned")
    }
    ppo = {"total_score": total, "ci95": [total - 0.1, total + 0.1]}
    run.report.write_text(json.dumps({"ppo": ppo, "ledger": accounts}))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    record(folder)
    return folder


def broken(run: RunFolder, expected: Expected = EXPECTED) -> list[str]:
    """Names of the checks that fail."""
    return [problem.partition(":")[0] for problem in problems(run, expected)]


def test_a_run_that_keeps_its_promises_has_no_problems(run: RunFolder) -> None:
    assert problems(run, EXPECTED) == []
    assert audit(run, history.read(run.history)).trained.asks == ITERATIONS


def test_every_check_fails_on_a_folder_without_a_run(tmp_path: Path) -> None:
    assert broken(RunFolder(tmp_path)) == [
        check.__name__
        for check in CHECKS
        if check.__name__ != "ages"  # no token is no token too old
    ]


def test_a_run_without_a_report_has_not_finished(run: RunFolder) -> None:
    run.report.unlink()
    assert broken(run)[0] == "finished"


def test_a_batch_that_is_trained_twice_is_found(run: RunFolder) -> None:
    shutil.copy(run.segment_file(1), run.segment_file(2))
    assert "trained_once" in broken(run)


def test_a_batch_that_is_missing_is_found(run: RunFolder) -> None:
    run.segment_file(2).unlink()
    assert "trained_once" in broken(run)


def test_a_run_that_trained_fewer_sessions_is_found(run: RunFolder) -> None:
    assert broken(run, replace(EXPECTED, sessions=ITERATIONS * EACH + 1)) == ["trained_once"]


def test_a_gap_in_a_stream_is_found(tmp_path: Path) -> None:
    run, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "other")
    record(other)
    record(run, iterations=2)
    shutil.copy(other.segment_file(3), run.segment_file(2))  # sessions 4 and 5 in place of 2 and 3
    found = problems(run, replace(EXPECTED, iterations=2, sessions=4))
    assert any(problem.startswith("trained_once") and "[0, 1, 4, 5]" in problem for problem in found)


def test_an_iteration_that_is_recorded_twice_is_found(run: RunFolder) -> None:
    lines = history.read(run.history)
    history.rewrite(run.history, [*lines, next(line for line in lines if line.event is Event.ITERATION)])
    assert "one_line_each" in broken(run)


def test_tokens_that_are_too_old_are_found(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record(run, lag=1)
    assert broken(run, replace(EXPECTED, max_age=0)) == ["ages"]
    assert broken(run, replace(EXPECTED, max_age=1)) == []


def test_a_purchase_that_no_book_holds_is_found(run: RunFolder) -> None:
    Journals(run, "0.0.start").buy(1, RECEIPT)
    assert broken(run) == ["exact_ledger"]


def test_a_report_with_other_books_is_found(run: RunFolder) -> None:
    found = json.loads(run.report.read_text())
    found["ledger"]["trained"]["charged"] += 300
    run.report.write_text(json.dumps(found))
    assert broken(run) == ["exact_ledger"]


def test_a_score_that_undisturbed_runs_do_not_reach_is_found(run: RunFolder) -> None:
    report(run, total=0.2)
    assert broken(run, replace(EXPECTED, interval=(0.3, 0.6))) == ["score_in_interval"]
    assert broken(run, replace(EXPECTED, interval=(0.1, 0.2))) == []
