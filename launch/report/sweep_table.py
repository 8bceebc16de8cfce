"""The results of a sweep: one line per run, and one per group of runs that differ by their seed alone.

sweep.json, in the sweep's folder, holds both.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from agile_ray.agent.expert import COLLEAGUE
from agile_ray.errors import ConfigError
from agile_ray.evaluation.intervals import Estimate, estimate
from agile_ray.record.folder import SweepFolder
from launch.report import wording
from launch.report.console import plain_console
from launch.report.plain_table import plain_table

if TYPE_CHECKING:
    from rich.table import Table

    from agile_ray.evaluation.score import Score
    from launch.report.summary import Report

WIDTH = 260  # characters; wider than either table
ASKED_TITLES = ("asked new, sampled", "greedy", "asked known, sampled", "greedy")
"""Titles of the asked shares: where memory lacks the answer (new), and where it holds it (known)."""
ENDS = ("always_ask", "always_colleague", "never_ask")
"""References that a policy with any expert is compared with; the second one is played if there is a colleague."""
BEST = "best without future"
"""The best reference policy without knowledge of the future, which may differ between runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """PPO's greedy policy of one run on the test split, and its total on validation, by which settings are chosen."""

    run: str
    group: str  # shared by runs that differ by their seed alone
    seed: int
    advice_cost: float | tuple[float, ...]
    asked_share: float
    oracle_asked_share: float
    asked_new: float | None  # where memory lacks the answer; None: there was no such session
    asked_known: float | None  # where memory holds it
    sampled_asked_new: float | None  # the same of the sampled policy
    sampled_asked_known: float | None
    accuracy: float
    total_score: float
    ci95: tuple[float, float] | None  # of total_score
    validation: float | None = None  # total score of this policy on the validation split; None: not measured
    minus: dict[str, Estimate]  # paired: its total score minus that of sft, sft_sampled, the best reference, and ENDS
    best_reference: str
    closed: float | None  # (total - best reference) / (oracle - best reference); None: the two are equal
    experts: dict[str, float] = field(default_factory=dict)  # with a colleague: share that asked each of the two
    oracle_experts: dict[str, float] = field(default_factory=dict)  # the same of the oracle


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
    validation: Estimate | None
    closed: Estimate | None
    oracle_asked_share: Estimate
    minus: dict[str, Estimate]  # of BEST and those of ENDS that all runs have: mean difference over seeds
    experts: dict[str, Estimate]
    oracle_experts: dict[str, Estimate]


def summarize(report: "Report", *, group: str) -> RunSummary:
    """The summary of a finished run."""
    assert report.ppo is not None
    assert report.ppo_sampled is not None
    assert report.best_reference is not None
    oracle = report.references["oracle"]
    two = any(entry.experts for entry in report.entries.values())
    compared = ("sft", "sft_sampled", report.best_reference, *ENDS)
    return RunSummary(
        run=report.run,
        group=group,
        seed=report.seed,
        advice_cost=report.advice_cost,
        asked_share=report.ppo.asked_share,
        oracle_asked_share=oracle.asked_share,
        asked_new=report.ppo.asked_new,
        asked_known=report.ppo.asked_known,
        sampled_asked_new=report.ppo_sampled.asked_new,
        sampled_asked_known=report.ppo_sampled.asked_known,
        accuracy=report.ppo.accuracy,
        total_score=report.ppo.total_score,
        ci95=report.ppo.ci95,
        validation=_validation(report),
        minus={
            name: Estimate(mean=report.differences[name].mean, ci95=report.differences[name].ci95)
            for name in dict.fromkeys(compared)
            if name in report.differences
        },
        best_reference=report.best_reference,
        closed=report.closed,
        experts=_experts(report.ppo) if two else {},
        oracle_experts=_experts(oracle) if two else {},
    )


def _experts(score: "Score") -> dict[str, float]:
    """Share of sessions that asked each of two experts; a score names them only if the colleague was asked."""
    return score.experts or {"expert": score.asked_share, COLLEAGUE: 0.0}


def _validation(report: "Report") -> float | None:
    """Total on validation of the iteration that was tested, which need not have the highest one."""
    totals = {point.iteration: point.total_score for point in report.progress if point.of == "validation"}
    if report.chosen is None:  # reports of earlier versions, which tested the highest
        return max(totals.values(), default=None)
    return totals.get(report.chosen.iteration)


def groups(runs: Sequence[RunSummary]) -> list[Group]:
    """Pool the runs of each group, in order of first appearance."""
    found = []
    for name in dict.fromkeys(run.group for run in runs):
        members = [run for run in runs if run.group == name]
        found.append(
            Group(
                group=name,
                runs=len(members),
                asked_share=estimate([run.asked_share for run in members]),
                asked_new=_known([run.asked_new for run in members]),
                asked_known=_known([run.asked_known for run in members]),
                sampled_asked_new=_known([run.sampled_asked_new for run in members]),
                sampled_asked_known=_known([run.sampled_asked_known for run in members]),
                accuracy=estimate([run.accuracy for run in members]),
                total_score=estimate([run.total_score for run in members]),
                validation=_known([run.validation for run in members]),
                closed=_known([run.closed for run in members]),
                oracle_asked_share=estimate([run.oracle_asked_share for run in members]),
                minus=_each([_leads(run) for run in members]),
                experts=_each([run.experts for run in members]),
                oracle_experts=_each([run.oracle_experts for run in members]),
            )
        )
    return found


def _leads(run: RunSummary) -> dict[str, float]:
    best = {BEST: run.minus[run.best_reference].mean}
    return {name: run.minus[name].mean for name in ENDS if name in run.minus} | best


def _each(members: Sequence[dict[str, float]]) -> dict[str, Estimate]:
    """Estimate by name, of the names that all members have."""
    names = [name for name in members[0] if all(name in one for one in members)]
    return {name: estimate([one[name] for one in members]) for name in names}


def _known(values: Sequence[float | None]) -> Estimate | None:
    """Estimate over the runs that have a value."""
    found = [value for value in values if value is not None]
    return estimate(found) if found else None


def read(folder: SweepFolder) -> list[RunSummary]:
    """The finished runs that a sweep's folder lists, in the order of the sweep.

    Raises:
        ConfigError: the folder holds no sweep.json, or one of another version.
    """
    path = folder.table
    if not path.is_file():
        raise ConfigError(
            f"{folder}: a sweep's folder holds {path.name}, found none; `agile-ray sweep` writes it at its end"
        )
    try:
        return _SUMMARIES.validate_python(json.loads(path.read_bytes())["rows"])
    except (ValueError, KeyError, TypeError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        raise ConfigError(f"{path}: not a sweep of this version: {problem['loc']}: {problem['msg']}") from error


_SUMMARIES = TypeAdapter(list[RunSummary])


def show(runs: Sequence[RunSummary]) -> None:
    """Print the tables at full width; a narrower terminal wraps the lines."""
    titles = ("run", "validation", "asked", "oracle asks", "right", "total")
    minus = (f"{wording.MINUS} {name}" for name in ("sft", "sft_sampled", BEST))
    each = plain_table(*titles, *minus, "closed", left=("run",))
    for run in runs:
        each.add_row(
            run.run,
            "" if run.validation is None else f"{run.validation:.3f}",
            f"{run.asked_share:.3f}",
            f"{run.oracle_asked_share:.3f}",
            f"{run.accuracy:.3f}",
            _cell(Estimate(mean=run.total_score, ci95=run.ci95)),
            *(_cell(run.minus[name], wording.signed) for name in ("sft", "sft_sampled", run.best_reference)),
            wording.closed(run.closed),
        )
    titles = ("all seeds of", "runs", "validation", "asked", "right", "total", "closed", *ASKED_TITLES)
    pooled = plain_table(*titles, left=("all seeds of",))
    found = groups(runs)
    for group in found:
        asked = (group.sampled_asked_new, group.asked_new, group.sampled_asked_known, group.asked_known)
        scores = (group.asked_share, group.accuracy, group.total_score)
        closed = wording.closed(group.closed.mean if group.closed else None)
        pooled.add_row(
            group.group,
            str(group.runs),
            "" if group.validation is None else _cell(group.validation),
            *map(_cell, scores),
            closed,
            *("" if one is None else _cell(one) for one in asked),
        )
    console = plain_console(width=WIDTH)
    console.print(each)
    console.print()
    console.print(pooled)
    console.print()
    console.print(_against_references(found))


def _against_references(found: Sequence[Group]) -> "Table":
    """What the policies gain over the references with the same expert, and whom they ask; intervals over seeds."""
    leads = list(dict.fromkeys(name for group in found for name in group.minus))
    whom = list(dict.fromkeys(name for group in found for name in group.experts))
    asks = [title for name in whom for title in (f"asked {name}", f"oracle asks {name}")]
    titles = ("over seeds", *(f"{wording.MINUS} {name}" for name in leads), "asked", "oracle asks", *asks)
    table = plain_table(*titles, left=("over seeds",))
    for group in found:
        shares = [one.get(name) for name in whom for one in (group.experts, group.oracle_experts)]
        table.add_row(
            group.group,
            *("" if name not in group.minus else _cell(group.minus[name], wording.signed) for name in leads),
            *map(_cell, (group.asked_share, group.oracle_asked_share)),
            *("" if one is None else _cell(one) for one in shares),
        )
    return table


def _cell(one: Estimate, written: Callable[[float], str] = "{:.3f}".format) -> str:
    interval = "" if one.ci95 is None else f" ({wording.interval(one.ci95)})"
    return written(one.mean) + interval
