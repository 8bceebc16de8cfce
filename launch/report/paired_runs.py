"""Runs set against one another on the same test questions: paired differences of total score, by run and over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from rich.console import Console
from rich.table import Table

from agile_ray.evaluation.intervals import Estimate, estimate
from agile_ray.evaluation.score import paired_difference
from agile_ray.record import evaluations
from agile_ray.record.folder import RunFolder
from agile_ray.types import Session
from launch.report import wording
from launch.report.sweep_table import WIDTH

ENTRIES = ("ppo", "ppo_sampled")
"""What is compared: the final policy, greedy and sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two finished runs."""

    group: str  # of pairs that differ by their seed alone
    folder: RunFolder
    to: RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """By how much one kind of run beats another; total score, reward per session."""

    group: str
    entry: str  # of ENTRIES
    runs: tuple[str, ...]
    by_run: tuple[Estimate, ...]  # each with an interval bootstrapped over streams
    pooled: Estimate  # all runs' streams together, bootstrapped over streams as if no two runs had played the same
    over_seeds: Estimate  # mean over runs with Student's interval


def compare(pairs: Sequence[Pair]) -> list[Versus]:
    """Compare every pair, and pool the pairs of each group, in order of first appearance.

    Raises:
        ConfigError: a file is missing, or its schema is another version's.
        ContractError: two runs of a pair did not play the same questions.
    """
    groups = dict.fromkeys(pair.group for pair in pairs)
    return [
        _versus(group, entry, [pair for pair in pairs if pair.group == group]) for group in groups for entry in ENTRIES
    ]


def _versus(group: str, entry: str, pairs: Sequence[Pair]) -> Versus:
    played = [(_played(pair.folder, entry, pair), _played(pair.to, entry, pair)) for pair in pairs]
    differences = [paired_difference(mine, its) for mine, its in played]
    mine, its = (list(chain.from_iterable(side)) for side in zip(*played, strict=True))
    pooled = paired_difference(mine, its)
    return Versus(
        group=group,
        entry=entry,
        runs=tuple(pair.folder.name for pair in pairs),
        by_run=tuple(Estimate(mean=one.mean, ci95=one.ci95) for one in differences),
        pooled=Estimate(mean=pooled.mean, ci95=pooled.ci95),
        over_seeds=estimate([one.mean for one in differences]),
    )


def _played(run: RunFolder, entry: str, pair: Pair) -> list[Session]:
    """A run's sessions, in streams that are named after the pair: what two seeds play may have one name."""
    sessions = evaluations.read(run, entry)
    return [replace(session, stream=f"{pair.folder.name}/{session.stream}") for session in sessions]


def show(compared: Sequence[Versus]) -> None:
    """Print what was compared, a line for each group."""
    if not compared:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("against the base", "policy", "by run", "all streams", "over seeds"):
        table.add_column(title, no_wrap=True)
    for one in compared:
        by_run = ", ".join(wording.signed(each.mean) for each in one.by_run)
        table.add_row(one.group, one.entry, by_run, _figure(one.pooled), _figure(one.over_seeds))
    console = Console(width=WIDTH)
    console.print()
    console.print(table)


def _figure(one: Estimate) -> str:
    return wording.signed(one.mean) + (
        "" if one.ci95 is None else f" ({wording.signed(one.ci95[0])} to {wording.signed(one.ci95[1])})"
    )
