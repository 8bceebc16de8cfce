"""`agile-ray reprice`: what the sessions that a run stored would have been worth at another price of advice.

RUN/segments/*.parquet      the sessions of each iteration      read
RUN/evaluation/*.parquet    those of each final evaluation      read
RUN/reprice-<price>.json                                        written

    total = (right answers - price of one ask * asks) / sessions

Money is counted in integer thousandths until that division. Failed sessions are left out and counted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agile_ray.config import thousandths
from agile_ray.errors import ConfigError
from agile_ray.record import evaluations, store
from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import write_json
from agile_ray.types import Ending, Session


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, wherever it was copied to.")],
    advice_cost: Annotated[float, typer.Option(help="Price of one ask, between 0 and 1: units of a right answer.")],
) -> None:
    """Score a run's stored sessions at another price of advice.

    Behaviour is what it was: the same sessions, the same asks, another bill. The policy would act otherwise at another
    price, so this does not foretell such a run: train it with env.advice_cost.

    Example: agile-ray reprice runs/quickstart --advice-cost 0.5
    """
    if not 0 <= advice_cost <= 1:
        raise ConfigError(f"--advice-cost: a price lies between 0 and 1, found {advice_cost:g}")
    try:
        price = thousandths(advice_cost)
    except ValueError as error:
        raise ConfigError(f"--advice-cost: {error}") from error
    folder = RunFolder(run)
    found = reprice(folder, price=price)
    show(found, Console(), title=f"{run.name}: as paid, and at {price / 1000:g} for each ask")
    write_json(folder.repriced(price), {"advice_cost": price / 1000, **metrics(found)})
    print(folder.repriced(price))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a set of sessions earned and paid, at its own price and at another."""

    sessions: int  # that did not fail
    failed: int  # left out of all else
    right: int  # sessions whose submitted answer is right
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
        return (1000 * self.right - paid) / (1000 * self.sessions) if self.sessions else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repriced:
    """All that a run has stored."""

    iterations: dict[int, Bill]
    evaluations: dict[str, Bill]


def reprice(run: RunFolder, *, price: int) -> Repriced:
    """Bill everything that a run has stored.

    Args:
        run: its folder.
        price: of one ask, thousandths.

    Raises:
        ConfigError: nothing is stored there, or by another version.
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
    """Count what sessions earned and paid, and what they would have paid at another price, thousandths for an ask."""
    kept = [session for session in sessions if session.ending is not Ending.FAILED]
    asks = sum(session.asks for session in kept)
    return Bill(
        sessions=len(kept),
        failed=len(sessions) - len(kept),
        right=sum(session.correct for session in kept),
        asked=sum(session.asks > 0 for session in kept),
        asks=asks,
        paid=sum(session.paid for session in kept),
        repriced=price * asks,
    )


def metrics(found: Repriced) -> dict[str, dict[str, dict[str, float]]]:
    """What is written: every bill with its shares and totals, by iteration and by evaluation."""
    return {
        "iterations": {str(iteration): _metrics(one) for iteration, one in found.iterations.items()},
        "evaluations": {name: _metrics(one) for name, one in found.evaluations.items()},
    }


def _metrics(one: Bill) -> dict[str, float]:
    shares = {name: getattr(one, name) for name in ("accuracy", "asked_share", "total", "repriced_total")}
    return asdict(one) | shares


def show(found: Repriced, console: Console, *, title: str) -> None:
    """Print a line for each iteration and evaluation; fits into 80 columns."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("sessions of", no_wrap=True)
    for head in ("number", "failed", "right", "asked", "asks", "paid", "total", "would pay", "total"):
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
