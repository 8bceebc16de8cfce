"""report.html of a run: one file that needs no network, no script and no other file."""

from collections.abc import Mapping

from agile_ray.record.history import FAILED
from agile_ray.types import Ending
from launch.report import wording
from launch.report.page import run_tables
from launch.report.page.frontier_part import frontier_part
from launch.report.page.run_charts import charts
from launch.report.page.template import render as rendered
from launch.report.summary import Report


def render(report: Report) -> str:
    """The whole page."""
    drawn = charts(report)
    found = {"ppo": report.differences, "ppo_sampled": report.differences_sampled}
    entries = {name: entry for name, entry in report.entries.items() if name in ("sft", "ppo")}
    shown = frontier_part(report.frontier) if report.frontier is not None else None
    return rendered(
        "run.html.j2",
        title=report.run,
        report=report,
        warnings=report.warnings,
        headline=wording.headline(report),
        card=wording.card(report),
        contents=_contents(report, drawn),
        tables=run_tables.tables(report),
        drawn=drawn,
        differences=[(name, run_tables.differences(one)) for name, one in found.items() if one],
        units=next((entry.units for entry in report.entries.values()), ""),
        wrong=[(name, run_tables.wrong(entry), _counts(entry.endings)) for name, entry in entries.items()],
        agreement=wording.agreement(report.ledger),
        counts=_counts({name: count for name, count in report.counts.items() if not name.startswith(FAILED)}),
        shown_frontier=shown,
    )


def _contents(report: Report, drawn: Mapping[str, object]) -> list[tuple[str, str]]:
    """Anchors and titles of the sections that the page has."""
    sections = [
        ("policies", "Policies", bool(report.entries)),
        ("iterations", "Iterations", bool(drawn["progress"])),
        ("learning", "Credit and stability", bool(drawn["learning"])),
        ("stream", "Along the stream", bool(drawn["stream"])),
        ("frontier", "Asks", report.frontier is not None),
        ("asking", "Calibration", bool(report.entries)),
        *((f"wrong-{name}", f"Errors of {name}", name in report.entries) for name in ("sft", "ppo")),
        ("ledger", "Ledger", True),
        ("machinery", "Speed", True),
        ("origin", "Origin", True),
    ]
    return [(name, title) for name, title, there in sections if there]


def _counts(found: Mapping[Ending, int] | Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(found.items()))
