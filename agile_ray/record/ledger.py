"""The ledger: books every receipt into one account, and checks that the learner was charged the same amounts.

account      receipts of
trained      sessions that were trained on
failed       sessions that a tool or expert error ended
abandoned    attempts at a session that was played again, sessions without a training row, asks whose sessions are not
             stored

Evaluations are in no account. Money is in integer thousandths, so sums are exact.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from agile_ray.errors import ContractError
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event, Line
from agile_ray.record.receipts import read_abandoned, read_journals
from agile_ray.record.store import Earned
from agile_ray.types import Ending, Receipt, Session

TOLERANCE = 1e-9
"""Largest difference between a metric of the history and the same metric computed from integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Sums over receipts."""

    asks: int = 0
    charged: int = 0  # thousandths


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationBooks:
    """The books of one iteration, without the receipts of discarded work."""

    iteration: int
    sessions: int  # trained on
    accuracy: float  # of those sessions
    total_score: float  # of those sessions: accuracy - trained.charged / (1000 sessions), reward per session
    trained: Account
    failed: Account
    abandoned: Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The books of a run; empty if it has not trained."""

    sessions: int = 0  # trained on, as in IterationBooks
    accuracy: float = 0.0
    total_score: float = 0.0
    trained: Account = Account()
    failed: Account = Account()
    abandoned: Account = Account()
    iterations: tuple[IterationBooks, ...] = ()

    @property
    def asks(self) -> int:
        """All asks that were paid for."""
        return self.trained.asks + self.failed.asks + self.abandoned.asks

    @property
    def charged(self) -> int:
        """What all asks cost, in thousandths."""
        return self.trained.charged + self.failed.charged + self.abandoned.charged


def audit(run: RunFolder, lines: Iterable[Line]) -> Ledger:
    """The books of a run, for the iterations in its history.

    Raises:
        ConfigError: an iteration of the history is not stored, or another version stored it.
        ContractError: as in `books`.
    """
    recorded = [line for line in lines if line.event is Event.ITERATION]
    last = max((line.iteration for line in recorded), default=0)
    stored = ((line, store.earned(run, line.iteration)) for line in recorded)
    discarded = (attempt.receipts for attempt in read_abandoned(run))
    waiting = read_journals(path for path, iteration in run.journals().items() if iteration > last)
    return books(stored, discarded=[*chain.from_iterable(discarded), *waiting.receipts])


def books(iterations: Iterable[tuple[Line, Sequence[Earned]]], *, discarded: Sequence[Receipt] = ()) -> Ledger:
    """Book every receipt, and compare the books with the learner's rewards and with the history.

    Args:
        iterations: the history line of each iteration, and its stored sessions.
        discarded: receipts of work that is not stored.

    Raises:
        ContractError: a trained session was charged twice for one ask; its rewards differ from its receipts and its
            answer; or an iteration's accuracy or total score differs from the history. Names the first case.
    """
    charged: dict[str, int] = {}
    trained: list[Session] = []
    abandoned: list[Receipt] = list(discarded)
    failed: list[Receipt] = []
    by_iteration: list[IterationBooks] = []
    for line, stored in iterations:
        parts = _split(stored)
        for earned in stored:
            if earned.trained:
                _check_rewards(earned, iteration=line.iteration)
        _charge(charged, parts.trained, iteration=line.iteration)
        _check_history(line, [earned.session for earned in stored])
        by_iteration.append(_iteration_books(line.iteration, parts))
        trained += parts.trained
        failed += parts.failed
        abandoned += parts.abandoned
    return Ledger(
        sessions=len(trained),
        accuracy=_accuracy(trained),
        total_score=_total(trained),
        trained=_account(_receipts(trained)),
        failed=_account(failed),
        abandoned=_account(abandoned),
        iterations=tuple(by_iteration),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """One iteration, split by account."""

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
    """Compare a session's rewards with its receipts and its answer.

    No token carries both a price and the reward for an answer, and the answer comes last: the sign of a reward tells
    which one it is, unless the answer earned less than nothing.
    """
    session = earned.session
    where = f"ledger: iteration {iteration}, session {session.stream}#{session.position}"
    due = session.earned
    paid = [receipt.price for receipt in session.receipts if receipt.price] + [-due] * (due < 0)
    seen = [round(-1000 * float(reward)) for reward in earned.rewards if reward < 0]
    if paid != seen:
        raise ContractError(
            f"{where}: the learner must be charged what the receipts say, {paid} thousandths, found {seen}"
        )
    due = max(due, 0)
    gained = sum(round(1000 * float(reward)) for reward in earned.rewards if reward > 0)
    if gained != due:
        raise ContractError(f"{where}: the learner must be given {due} thousandths for the answer, found {gained}")


def _charge(charged: dict[str, int], sessions: Iterable[Session], *, iteration: int) -> None:
    for receipt in _receipts(sessions):
        if receipt.key in charged:
            raise ContractError(
                f"ledger: an ask must be charged once, but {receipt.key} is charged in iteration "
                f"{charged[receipt.key]} and in iteration {iteration}"
            )
        charged[receipt.key] = iteration


def _check_history(line: Line, played: Iterable[Session]) -> None:
    """Compare with the history, whose metrics cover all sessions that did not fail (agile_ray/evaluation/score.py)."""
    kept = [session for session in played if session.ending is not Ending.FAILED]
    for name, value in (("accuracy", _accuracy(kept)), ("total_score", _total(kept))):
        if abs(line.metrics[name] - value) > TOLERANCE:
            raise ContractError(
                f"ledger: iteration {line.iteration}: {name} in the history must be that of the stored sessions, "
                f"{value}, found {line.metrics[name]}"
            )


def _iteration_books(iteration: int, parts: _Parts) -> IterationBooks:
    return IterationBooks(
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
