"""What must hold of a run's folder after the run was disturbed and has finished."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from agile_ray.errors import AgileError, ContractError
from agile_ray.record import history, ledger
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from tests.fakes.lineage import check_lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an undisturbed run of the same command leaves."""

    iterations: int
    sessions: int  # trained on, over the whole run
    max_age: int = 0  # largest age at which a token is learned, in versions
    interval: tuple[float, float] = (float("-inf"), float("inf"))  # of the final total score


def problems(run: RunFolder, expected: Expected) -> list[str]:
    """Every promise that the run breaks, one line each; [] if it keeps all."""
    found: list[str] = []
    for check in CHECKS:
        try:
            check(run, expected)
        except (AgileError, OSError) as error:
            found.append(f"{check.__name__}: {error}")
    return found


def finished(run: RunFolder, expected: Expected) -> None:
    """The run has its results.

    Raises:
        ContractError: it has not.
    """
    if not run.is_finished:
        raise ContractError(f"{run} must have finished, and has no report.json")


def trained_once(run: RunFolder, expected: Expected) -> None:
    """Every session of the surviving lineage was trained exactly once, and none is missing.

    Raises:
        ContractError: an iteration, session or segment is missing, or was trained twice.
    """
    sessions = check_lineage(run)
    if (len(run.stored_iterations()), sessions) != (expected.iterations, expected.sessions):
        raise ContractError(
            f"{run}: must have trained {expected.sessions} sessions in {expected.iterations} iterations, found "
            f"{sessions} in {len(run.stored_iterations())}"
        )
    for stream, positions in _positions(run).items():
        if positions != list(range(positions[0], positions[0] + len(positions))):
            raise ContractError(f"{run}: the sessions of a stream follow one another, but in {stream} {positions}")


def one_line_each(run: RunFolder, expected: Expected) -> None:
    """The history has every iteration and every step of imitation once, in order.

    Raises:
        ContractError: it has not.
    """
    lines = history.read(run.history)
    iterations = [line.iteration for line in lines if line.event is Event.ITERATION]
    steps = [line.imitation_steps for line in lines if line.event is Event.IMITATION]
    if iterations != list(range(1, expected.iterations + 1)) or steps != list(range(1, len(steps) + 1)):
        raise ContractError(
            f"{run.history}: every step once and in order, found iterations {iterations}, steps {steps}"
        )


def ages(run: RunFolder, expected: Expected) -> None:
    """No token was learned at a greater age than allowed. Iteration i is learned at version i - 1.

    Raises:
        ContractError: one was, or by a version that did not exist yet.
    """
    for iteration in run.stored_iterations():
        lines = pq.read_table(run.segment_file(iteration), columns=["versions", "action_mask", "trained"]).to_pylist()
        versions = {
            version
            for line in lines
            if line["trained"]
            for version, acted in zip(line["versions"], line["action_mask"], strict=True)
            if acted
        }
        allowed = range(max(0, iteration - 1 - expected.max_age), iteration)
        if not versions <= {*allowed}:
            raise ContractError(
                f"{run}: iteration {iteration} learns tokens of versions {allowed.start} to {allowed.stop - 1}, found "
                f"{sorted(versions)}"
            )


def exact_ledger(run: RunFolder, expected: Expected) -> None:
    """Every receipt is booked once, the learner was charged the same, and no purchase is left without a book.

    Raises:
        ContractError: the books disagree with rewards, history or the report; or a journal is left.
    """
    books = ledger.audit(run, history.read(run.history))
    if left := run.journals():
        raise ContractError(
            f"{run}: receipts of a finished run are booked, but {len(left)} journals are left: {min(left)}"
        )
    reported = json.loads(run.report.read_text())["ledger"]
    for account in ("trained", "failed", "abandoned"):
        own = getattr(books, account)
        if (reported[account]["asks"], reported[account]["charged"]) != (own.asks, own.charged):
            raise ContractError(f"{run}: the report books {reported[account]} as {account}, its receipts are {own}")


def score_in_interval(run: RunFolder, expected: Expected) -> None:
    """The final score is one that undisturbed runs reach.

    Raises:
        ContractError: it is not.
    """
    low, high = expected.interval
    if not low <= (total := score(run)) <= high:
        raise ContractError(f"{run}: the final total must be from {low:.3f} to {high:.3f}, found {total:.3f}")


CHECKS: tuple[Callable[[RunFolder, Expected], None], ...] = (
    finished,
    trained_once,
    one_line_each,
    ages,
    exact_ledger,
    score_in_interval,
)


def score(run: RunFolder) -> float:
    """Total score of the trained policy in the final evaluation."""
    return float(json.loads(run.report.read_text())["ppo"]["total_score"])


def final_weights(run: RunFolder, iterations: int) -> Path:
    """The weights after the last iteration."""
    return run.checkpoints / f"iteration-{iterations:05d}" / "model.safetensors"


def _positions(run: RunFolder) -> dict[str, list[int]]:
    """Positions of the stored sessions of each stream, failed ones too, ascending."""
    found: dict[str, set[int]] = {}
    for iteration in run.stored_iterations():
        for line in pq.read_table(run.segment_file(iteration), columns=["stream", "position"]).to_pylist():
            found.setdefault(line["stream"], set()).add(line["position"])
    return {stream: sorted(positions) for stream, positions in found.items()}
