"""The tables that `agile-ray frontier` prints."""

from collections.abc import Callable

from rich.console import Console

from agile_ray.evaluation.intervals import Estimate
from launch.report import wording
from launch.report.frontier.measure import GAIN, Frontier, Line, Point
from launch.report.plain_table import plain_table

POINT_TITLES = ("policy", "price", "asked", "right", "total", "closed", "Ask-F1", "AUGRC")
LINE_TITLES = ("policy", "hypervolume", "area", f"asks for {GAIN:.0%}", "out of order")


def show(frontier: Frontier, console: Console) -> None:
    """Print a line for each policy and price, and one for each policy over all prices."""
    seeds = f"{len(frontier.seeds)} seed{'s' * (len(frontier.seeds) > 1)}"
    console.print(f"{frontier.policy}, {seeds}", highlight=False)
    points = plain_table(*POINT_TITLES, left=("policy",))
    for line in frontier.lines:
        for point in line.points:
            values = (point.asked_share, point.accuracy, point.total_score)
            points.add_row(line.entry, f"{point.price:g}", *map(cell, values), *measures(point))
    console.print(points)
    console.print()
    lines = plain_table(*LINE_TITLES, left=("policy",))
    for line in frontier.lines:
        lines.add_row(*line_cells(line))
    console.print(lines)
    console.print("\n".join(remarks(frontier)), highlight=False)
    console.print()


def measures(point: Point) -> list[str]:
    """What `closed`, Ask-F1 and AUGRC are at a price."""
    return [cell(point.closed, "{:.0%}".format), cell(point.ask_f1), cell(point.augrc, "{:.4f}".format)]


def line_cells(line: Line) -> list[str]:
    """Cells of LINE_TITLES."""
    found = line.violations
    order = f"{found.violated} of {found.pairs}" if found.pairs else ""
    return [line.entry, *map(cell, (line.hypervolume, line.area, line.asks_needed)), order]


def remarks(frontier: Frontier) -> list[str]:
    """How to read the tables, and what is missing."""
    over = "seeds" if len(frontier.seeds) > 1 else "streams; measures that are no mean over sessions have none"
    found = [
        f"Intervals are over {over}.",
        "Ask-F1 compares asks with the oracle's. AUGRC is that of the policy's own probability of asking: the share of "
        "wrong answers that slip through a random threshold.",
        f"Area: under the deferral curve. Asks for {GAIN:.0%}: share of sessions that must ask for {GAIN:.0%} of what "
        "the oracle gains in accuracy over never asking. Out of order: pairs of prices at which the dearer one is "
        "asked at more often.",
    ]
    if frontier.reference_point is not None:
        asked, right = frontier.reference_point
        found.append(f"Reference point of the hypervolume: asked {asked:g}, right {right:.3f} (never_ask).")
    return [*found, *(f"Note: {note}." for note in frontier.notes)]


def cell(one: Estimate | None, written: Callable[[float], str] = "{:.3f}".format) -> str:
    """The mean and its interval; "" if there is none."""
    if one is None:
        return ""
    ends = "" if one.ci95 is None else f" ({written(one.ci95[0])} to {written(one.ci95[1])})"
    return f"{written(one.mean)}{ends}".replace("-", wording.MINUS)
