"""Paired differences of total score between runs that played the same test questions: per run, and over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from agile_ray.evaluation.intervals import Estimate, estimate
from agile_ray.evaluation.score import paired_difference
from agile_ray.record import evaluations
from agile_ray.record.folder import RunFolder
from agile_ray.types import Session
from launch.report import wording
from launch.report.console import plain_console
from launch.report.plain_table import plain_table
from launch.report.sweep_table import WIDTH

ENTRIES = ("ppo", "ppo_sampled")
"""The compared evaluations: the final policy, greedy and sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPair:
    """Two finished runs whose final policies played the same questions."""

    group: str  # shared by pairs that differ by their seed alone
    run: RunFolder
    baseline: RunFolder  # of the run that it is compared with


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """Total score of a group of runs minus that of their baselines, in reward per session."""

    group: str
    entry: str  # of ENTRIES
    runs: tuple[str, ...]
    by_run: tuple[Estimate, ...]  # each with an interval over streams
    pooled: Estimate  # over the streams of all runs, as if every run had played streams of its own
    over_seeds: Estimate  # mean over runs with Student's interval


def compare(pairs: Sequence[RunPair]) -> list[PairedDifference]:
    """Compare every pair, and pool the pairs of each group, in order of first appearance.

    Raises:
        ConfigError: a file is missing, or its schema is another version's.
        ContractError: two runs of a pair did not play the same questions.
    """
    groups = dict.fromkeys(pair.group for pair in pairs)
    return [
        _difference(group, entry, [pair for pair in pairs if pair.group == group])
        for group in groups
        for entry in ENTRIES
    ]


def _difference(group: str, entry: str, pairs: Sequence[RunPair]) -> PairedDifference:
    played = [(_sessions(pair.run, entry, pair), _sessions(pair.baseline, entry, pair)) for pair in pairs]
    differences = [paired_difference(mine, its) for mine, its in played]
    mine, its = (list(chain.from_iterable(side)) for side in zip(*played, strict=True))
    pooled = paired_difference(mine, its)
    return PairedDifference(
        group=group,
        entry=entry,
        runs=tuple(pair.run.path.name for pair in pairs),
        by_run=tuple(Estimate(mean=one.mean, ci95=one.ci95) for one in differences),
        pooled=Estimate(mean=pooled.mean, ci95=pooled.ci95),
        over_seeds=estimate([one.mean for one in differences]),
    )


def _sessions(run: RunFolder, entry: str, pair: RunPair) -> list[Session]:
    """A run's sessions, in streams that are named after the pair: two seeds may play streams of the same name."""
    sessions = evaluations.read(run, entry)
    return [replace(session, stream=f"{pair.run.path.name}/{session.stream}") for session in sessions]


def show(compared: Sequence[PairedDifference]) -> None:
    """Print one line per group and evaluation."""
    if not compared:
        return
    titles = ("against the base", "policy", "by run", "all streams", "over seeds")
    table = plain_table(*titles, left=titles)
    for one in compared:
        by_run = ", ".join(wording.signed(each.mean) for each in one.by_run)
        table.add_row(one.group, one.entry, by_run, _cell(one.pooled), _cell(one.over_seeds))
    console = plain_console(width=WIDTH)
    console.print()
    console.print(table)


def _cell(one: Estimate) -> str:
    return wording.signed(one.mean) + (
        "" if one.ci95 is None else f" ({wording.signed(one.ci95[0])} to {wording.signed(one.ci95[1])})"
    )
