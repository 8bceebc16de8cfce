"""What the stored sessions of a run would have earned at another price of advice.

    total = (rewards for answers - price of one ask * asks) / sessions

Money is counted in integer thousandths until that division. Failed sessions are left out, and counted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from agile_ray.errors import ConfigError
from agile_ray.record import evaluations, store
from agile_ray.record.folder import RunFolder
from agile_ray.types import Ending, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a set of sessions earned and paid, at the price that was paid and at another."""

    sessions: int  # without failed ones
    failed: int  # counted nowhere else
    right: int  # sessions with a right answer
    earned: int  # thousandths, for answers
    asked: int  # sessions that asked at least once
    asks: int
    paid: int  # thousandths, as played
    repriced: int  # thousandths, at the other price

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.sessions if self.sessions else 0.0

    @property
    def asked_share(self) -> float:
        """Share of the sessions that asked at least once."""
        return self.asked / self.sessions if self.sessions else 0.0

    @property
    def total(self) -> float:
        """Reward per session, as played."""
        return self._total(self.paid)

    @property
    def repriced_total(self) -> float:
        """Reward per session, at the other price."""
        return self._total(self.repriced)

    def _total(self, paid: int) -> float:
        return (self.earned - paid) / (1000 * self.sessions) if self.sessions else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repriced:
    """The bills of everything that a run has stored."""

    iterations: dict[int, Bill]
    evaluations: dict[str, Bill]


def reprice(run: RunFolder, *, price: int) -> Repriced:
    """Bill everything that a run has stored.

    Args:
        run: its folder.
        price: of one ask, in thousandths.

    Raises:
        ConfigError: the folder holds no sessions, or another version stored them.
    """
    found = Repriced(
        iterations={
            iteration: bill(store.outcomes(run, iteration), price=price) for iteration in run.stored_iterations()
        },
        evaluations={name: bill(sessions, price=price) for name, sessions in evaluations.kept(run).items()},
    )
    if not found.iterations and not found.evaluations:
        raise ConfigError(
            f"{run}: a run's folder holds sessions in {run.segments.name} or {run.evaluations.name}, found none"
        )
    return found


def bill(sessions: Sequence[Session], *, price: int) -> Bill:
    """Count what sessions earned and paid, and what they would pay at another price per ask, in thousandths."""
    kept = [session for session in sessions if session.ending is not Ending.FAILED]
    asks = sum(session.asks for session in kept)
    return Bill(
        sessions=len(kept),
        failed=len(sessions) - len(kept),
        right=sum(session.correct for session in kept),
        earned=sum(session.earned for session in kept),
        asked=sum(session.asks > 0 for session in kept),
        asks=asks,
        paid=sum(session.paid for session in kept),
        repriced=price * asks,
    )


def metrics(found: Repriced) -> dict[str, dict[str, dict[str, float]]]:
    """The content of the JSON file: every bill with its shares and totals, by iteration and by evaluation."""
    return {
        "iterations": {str(iteration): _metrics(one) for iteration, one in found.iterations.items()},
        "evaluations": {name: _metrics(one) for name, one in found.evaluations.items()},
    }


def _metrics(one: Bill) -> dict[str, float]:
    shares = {name: getattr(one, name) for name in ("accuracy", "asked_share", "total", "repriced_total")}
    return asdict(one) | shares


def show(found: Repriced, console: Console, *, title: str) -> None:
    """Print one line per iteration and evaluation, in at most 80 columns."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("sessions of", no_wrap=True)
    for head in ("number", "failed", "right", "asked", "asks", "paid", "total", "would\npay", "new\ntotal"):
        table.add_column(head, justify="right", no_wrap=True)
    for iteration, one in found.iterations.items():
        table.add_row(f"iteration {iteration}", *_cells(one))
    table.add_section()
    for name, one in found.evaluations.items():
        table.add_row(name, *_cells(one))
    console.print(table)


def _cells(one: Bill) -> list[str]:
    return [
        str(one.sessions),
        str(one.failed),
        f"{one.accuracy:.3f}",
        f"{one.asked_share:.3f}",
        str(one.asks),
        f"{one.paid / 1000:g}",
        f"{one.total:.3f}",
        f"{one.repriced / 1000:g}",
        f"{one.repriced_total:.3f}",
    ]
