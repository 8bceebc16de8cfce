"""What a sweep found: a row for each run, and a row for all runs that differ by nothing but their seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from agile_ray.evaluation.intervals import Estimate, estimate
from launch.report import wording

if TYPE_CHECKING:
    from launch.report.summary import Report

WIDTH = 260  # a longer line than either table needs
SIGHTS = ("asked new, sampled", "greedy", "asked known, sampled", "greedy")
"""Where memory does not hold the answer, and where it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """PPO's policy of one run, greedy, on the test split."""

    run: str
    group: str  # of runs that differ by their seed alone
    seed: int
    advice_cost: float
    asked_share: float
    oracle_asked_share: float
    asked_new: float | None  # at first sight; None: there was no such session
    asked_known: float | None  # on repeats
    sampled_asked_new: float | None  # the same of the sampled policy
    sampled_asked_known: float | None
    accuracy: float
    total_score: float
    ci95: tuple[float, float]  # of total_score
    minus: dict[str, Estimate]  # its total score minus that of sft, sft_sampled and the best reference; paired
    best_reference: str
    closed: float | None  # (total - best reference) / (oracle - best reference); None: there is no distance


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs that differ by their seed alone; means over seeds."""

    group: str
    runs: int
    asked_share: Estimate
    asked_new: Estimate | None
    asked_known: Estimate | None
    sampled_asked_new: Estimate | None
    sampled_asked_known: Estimate | None
    accuracy: Estimate
    total_score: Estimate
    closed: Estimate | None


def row(report: "Report", *, group: str) -> Row:
    """The row of a finished run."""
    assert report.ppo is not None
    assert report.ppo_sampled is not None
    assert report.best_reference is not None
    return Row(
        run=report.run,
        group=group,
        seed=report.seed,
        advice_cost=report.advice_cost,
        asked_share=report.ppo.asked_share,
        oracle_asked_share=report.references["oracle"].asked_share,
        asked_new=report.ppo.asked_new,
        asked_known=report.ppo.asked_known,
        sampled_asked_new=report.ppo_sampled.asked_new,
        sampled_asked_known=report.ppo_sampled.asked_known,
        accuracy=report.ppo.accuracy,
        total_score=report.ppo.total_score,
        ci95=report.ppo.ci95,
        minus={
            name: Estimate(mean=report.differences[name].mean, ci95=report.differences[name].ci95)
            for name in ("sft", "sft_sampled", report.best_reference)
        },
        best_reference=report.best_reference,
        closed=report.closed,
    )


def groups(rows: Sequence[Row]) -> list[Group]:
    """Pool the rows of each group, in order of first appearance."""
    found = []
    for name in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == name]
        found.append(
            Group(
                group=name,
                runs=len(members),
                asked_share=estimate([row.asked_share for row in members]),
                asked_new=_known([row.asked_new for row in members]),
                asked_known=_known([row.asked_known for row in members]),
                sampled_asked_new=_known([row.sampled_asked_new for row in members]),
                sampled_asked_known=_known([row.sampled_asked_known for row in members]),
                accuracy=estimate([row.accuracy for row in members]),
                total_score=estimate([row.total_score for row in members]),
                closed=_known([row.closed for row in members]),
            )
        )
    return found


def _known(values: Sequence[float | None]) -> Estimate | None:
    """Of the runs that have a value."""
    found = [value for value in values if value is not None]
    return estimate(found) if found else None


def show(rows: Sequence[Row]) -> None:
    """Print both tables, in full: where the screen is narrower than they are, the lines wrap."""
    runs = _table(
        "run", "asked", "oracle asks", "right", "total", f"{wording.MINUS} sft", f"{wording.MINUS} sft_sampled"
    )
    runs.add_column(f"{wording.MINUS} best without future", justify="right", no_wrap=True)
    runs.add_column("closed", justify="right", no_wrap=True)
    for one in rows:
        runs.add_row(
            one.run,
            f"{one.asked_share:.3f}",
            f"{one.oracle_asked_share:.3f}",
            f"{one.accuracy:.3f}",
            _figure(Estimate(mean=one.total_score, ci95=one.ci95)),
            *(_figure(one.minus[name], wording.signed) for name in ("sft", "sft_sampled", one.best_reference)),
            "" if one.closed is None else f"{one.closed:.0%}",
        )
    pooled = _table("all seeds of", "runs", "asked", "right", "total", "closed", *SIGHTS)
    for group in groups(rows):
        sights = (group.sampled_asked_new, group.asked_new, group.sampled_asked_known, group.asked_known)
        metrics = (group.asked_share, group.accuracy, group.total_score, group.closed, *sights)
        pooled.add_row(group.group, str(group.runs), *("" if one is None else _figure(one) for one in metrics))
    console = Console(width=WIDTH)
    console.print(runs)
    console.print()
    console.print(pooled)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _figure(one: Estimate, written: Callable[[float], str] = "{:.3f}".format) -> str:
    interval = "" if one.ci95 is None else f" ({wording.interval(one.ci95)})"
    return written(one.mean) + interval
