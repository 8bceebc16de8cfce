"""report.html of a sweep: its frontiers, its runs and their means over seeds, in one file without network or script."""

from collections.abc import Sequence

from launch.report import wording
from launch.report.frontier.measure import Frontier
from launch.report.page.frontier_part import frontier_part, split
from launch.report.page.table import Table, table
from launch.report.page.template import render as rendered
from launch.report.summary import Report
from launch.report.sweep_table import Group


def render(name: str, *, frontiers: Sequence[Frontier], reports: Sequence[Report], groups: Sequence[Group]) -> str:
    """The whole page.

    Args:
        name: of the sweep.
        frontiers: of its finished runs.
        reports: of its finished runs.
        groups: its means over seeds; empty before `agile-ray sweep` has ended.
    """
    return rendered(
        "sweep.html.j2",
        title=name,
        warnings=[f"{report.run}: {sentence}" for report in reports for sentence in report.warnings],
        lead=f"A sweep of {len(reports)} finished runs.",
        frontiers=[frontier_part(one) for one in frontiers],
        runs=_runs(reports),
        groups=_groups(groups),
    )


def _runs(reports: Sequence[Report]) -> Table | None:
    rows = []
    for report in reports:
        if report.ppo is None:
            continue
        rows.append(
            [
                report.run,
                wording.cost(report.advice_cost),
                str(report.seed),
                f"{report.ppo.total_score:.3f}",
                wording.interval(report.ppo.ci95),
                f"{report.ppo.accuracy:.3f}",
                f"{report.ppo.asked_share:.3f}",
                wording.closed(report.closed),
                "" if report.chosen is None else str(report.chosen.iteration),
            ]
        )
    titles = ("run", "~price", "~seed", "total", "~95 % interval", "right", "asked", "~closed", "~chosen iteration")
    return table(*titles, rows=rows)


def _groups(groups: Sequence[Group]) -> Table | None:
    rows = [
        [
            one.group,
            str(one.runs),
            *split(one.total_score),
            *split(one.accuracy),
            *split(one.asked_share),
            wording.closed(one.closed.mean if one.closed else None),
        ]
        for one in groups
    ]
    ends = "~95 % interval"
    return table("all seeds of", "~runs", "total", ends, "right", ends, "asked", ends, "~closed", rows=rows)
