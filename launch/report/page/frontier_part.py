"""A frontier as a part of a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from agile_ray.evaluation.intervals import Estimate
from launch.report.frontier.measure import Frontier
from launch.report.frontier_table import LINE_TITLES, line_cells, measures, remarks
from launch.report.page.chart import Drawing
from launch.report.page.run_charts import frontier_charts
from launch.report.page.table import Table, table
from launch.report.wording import MINUS, interval

POINTS = (
    *("policy", "price", "total", "~95 % interval", "right", "~95 % interval", "asked", "~95 % interval"),
    *("~closed", "~Ask-F1", "~AUGRC"),
)
LINES = tuple(title if title != "out of order" else f"~{title}" for title in LINE_TITLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPart:
    """What parts.html.j2 shows of a frontier."""

    frontier: Frontier
    title: str
    charts: Sequence[Drawing]
    points: Table | None
    lines: Table | None
    remarks: Sequence[str]


def frontier_part(frontier: Frontier) -> FrontierPart:
    """Charts, tables and remarks of a frontier."""
    return FrontierPart(
        frontier=frontier,
        title=f"Frontier of {frontier.policy}",
        charts=frontier_charts(frontier),
        points=table(*POINTS, rows=_points(frontier)),
        lines=table(*LINES, rows=[line_cells(line) for line in frontier.lines]),
        remarks=remarks(frontier),
    )


def _points(frontier: Frontier) -> list[list[str]]:
    return [
        [
            line.entry,
            f"{point.price:g}",
            *split(point.total_score),
            *split(point.accuracy),
            *split(point.asked_share),
            *measures(point),
        ]
        for line in frontier.lines
        for point in line.points
    ]


def split(one: Estimate | None) -> tuple[str, str]:
    """The mean and the interval, as texts of two columns."""
    if one is None:
        return "", ""
    return f"{one.mean:.3f}".replace("-", MINUS), "" if one.ci95 is None else interval(one.ci95)
