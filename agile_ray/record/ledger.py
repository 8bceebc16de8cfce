"""The ledger: where every ask's price went, and whether that is what the learner was charged.

account      holds the receipts of
trained      sessions that were trained on
failed       sessions that a broken tool or expert ended
abandoned    what was thrown away: iterations and collections after the checkpoint a run went on from, attempts at a
             session that was played again, sessions without a row to train on

Evaluations are in none of them. Money is in integer thousandths, so that the books agree exactly or not at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from agile_ray.errors import ContractError
from agile_ray.record import abandoned, store
from agile_ray.record.folder import SEGMENTS
from agile_ray.record.history import Event, Line
from agile_ray.record.store import Earned
from agile_ray.types import Ending, Receipt, Session

TOLERANCE = 1e-9
"""Between a figure of the history and the same one from integers; both are one division of the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Receipts, added up."""

    asks: int = 0
    charged: int = 0  # thousandths


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The books of one iteration; what a resumption threw away is in none."""

    iteration: int
    sessions: int  # trained on
    accuracy: float  # of them
    total_score: float  # of them: accuracy - trained.charged / (1000 sessions), reward per session
    trained: Account
    failed: Account
    abandoned: Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The books of a run; of one that has not trained, empty."""

    sessions: int = 0  # trained on, as in Entry
    accuracy: float = 0.0
    total_score: float = 0.0
    trained: Account = Account()
    failed: Account = Account()
    abandoned: Account = Account()
    iterations: tuple[Entry, ...] = ()

    @property
    def asks(self) -> int:
        """Everything that was ever paid for."""
        return self.trained.asks + self.failed.asks + self.abandoned.asks

    @property
    def charged(self) -> int:
        """All of it, in thousandths."""
        return self.trained.charged + self.failed.charged + self.abandoned.charged


def audit(run_folder: Path, lines: Iterable[Line]) -> Ledger:
    """The books of a run's folder, as far as its history goes: an iteration that has no line yet is not recorded yet.

    Raises:
        ConfigError: an iteration of the history is not stored, or by another version.
        ContractError: as `books`.
    """
    segments = run_folder / SEGMENTS
    recorded = [line for line in lines if line.event is Event.ITERATION]
    stored = ((line, store.earned(segments, line.iteration)) for line in recorded)
    thrown = (attempt.receipts for attempt in abandoned.read(run_folder))
    return books(stored, thrown_away=list(chain.from_iterable(thrown)))


def books(iterations: Iterable[tuple[Line, Sequence[Earned]]], *, thrown_away: Sequence[Receipt] = ()) -> Ledger:
    """Book every receipt, and compare with what the learner saw and with what the history says.

    Args:
        iterations: the history's line of each, and its stored sessions.
        thrown_away: receipts of iterations that are no longer stored.

    Raises:
        ContractError: of trained sessions, an ask was charged twice, or one was charged or rewarded otherwise than its
            receipts and its answer say; an iteration's accuracy or total score is not that of the history. Names the
            first of them.
    """
    charged: dict[str, int] = {}
    trained: list[Session] = []
    rest: list[Receipt] = list(thrown_away)
    failed: list[Receipt] = []
    entries: list[Entry] = []
    for line, stored in iterations:
        parts = _split(stored)
        for earned in stored:
            if earned.trained:
                _check_rewards(earned, iteration=line.iteration)
        _charge(charged, parts.trained, iteration=line.iteration)
        _check_history(line, [earned.session for earned in stored])
        entries.append(_entry(line.iteration, parts))
        trained += parts.trained
        failed += parts.failed
        rest += parts.abandoned
    return Ledger(
        sessions=len(trained),
        accuracy=_accuracy(trained),
        total_score=_total(trained),
        trained=_account(_receipts(trained)),
        failed=_account(failed),
        abandoned=_account(rest),
        iterations=tuple(entries),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """One iteration, by account."""

    trained: list[Session]
    failed: list[Receipt]
    abandoned: list[Receipt]


def _split(stored: Sequence[Earned]) -> _Parts:
    played = [earned.session for earned in stored]
    trained = [earned.session for earned in stored if earned.trained]
    failed = [session for session in played if session.ending is Ending.FAILED]
    idle = [earned.session for earned in stored if not earned.trained and earned.session.ending is not Ending.FAILED]
    again = [receipt for session in played for receipt in session.abandoned]
    return _Parts(trained=trained, failed=_receipts(failed), abandoned=_receipts(idle) + again)


def _check_rewards(earned: Earned, *, iteration: int) -> None:
    """A price and the reward for an answer never land on one token, so that each can be read off by its sign."""
    session = earned.session
    where = f"ledger: iteration {iteration}, session {session.stream}#{session.position}"
    paid = [receipt.price for receipt in session.receipts if receipt.price]
    seen = [round(-1000 * float(reward)) for reward in earned.rewards if reward < 0]
    if paid != seen:
        raise ContractError(f"{where}: the learner is charged what receipts say, {paid} thousandths, found {seen}")
    due = 1000 * session.correct
    gained = sum(round(1000 * float(reward)) for reward in earned.rewards if reward > 0)
    if gained != due:
        raise ContractError(f"{where}: an answer earns {due} thousandths, the learner saw {gained}")


def _charge(charged: dict[str, int], sessions: Iterable[Session], *, iteration: int) -> None:
    for receipt in _receipts(sessions):
        if receipt.key in charged:
            raise ContractError(
                f"ledger: an ask is charged once, but {receipt.key} is in iteration {charged[receipt.key]} and in "
                f"iteration {iteration}"
            )
        charged[receipt.key] = iteration


def _check_history(line: Line, played: Iterable[Session]) -> None:
    """The history's metrics are of all sessions that did not fail, as agile_ray/evaluation/score.py has them."""
    kept = [session for session in played if session.ending is not Ending.FAILED]
    for name, value in (("accuracy", _accuracy(kept)), ("total_score", _total(kept))):
        if abs(line.metrics[name] - value) > TOLERANCE:
            raise ContractError(
                f"ledger: iteration {line.iteration}: {name} of the stored sessions is {value}, the history says "
                f"{line.metrics[name]}"
            )


def _entry(iteration: int, parts: _Parts) -> Entry:
    return Entry(
        iteration=iteration,
        sessions=len(parts.trained),
        accuracy=_accuracy(parts.trained),
        total_score=_total(parts.trained),
        trained=_account(_receipts(parts.trained)),
        failed=_account(parts.failed),
        abandoned=_account(parts.abandoned),
    )


def _receipts(sessions: Iterable[Session]) -> list[Receipt]:
    return [receipt for session in sessions for receipt in session.receipts]


def _account(receipts: Sequence[Receipt]) -> Account:
    return Account(asks=len(receipts), charged=sum(receipt.price for receipt in receipts))


def _accuracy(sessions: Sequence[Session]) -> float:
    return sum(session.correct for session in sessions) / len(sessions) if sessions else 0.0


def _total(sessions: Sequence[Session]) -> float:
    thousandths = sum(session.reward for session in sessions)
    return thousandths / (1000 * len(sessions)) if sessions else 0.0
