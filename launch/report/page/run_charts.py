"""The charts of a run's page."""

from collections.abc import Mapping, Sequence

from launch.report.entries import ORACLE
from launch.report.frontier.measure import Frontier, Line
from launch.report.page.chart import Chart, Drawing, Level, Row, Series, Spot, draw, draw_rows
from launch.report.summary import Report

STYLES = {
    "ppo": "blue",
    "ppo_sampled": "sky",
    "sft": "red",
    "sft_sampled": "orange",
    ORACLE: "green",
    "ask_unless_search": "purple dashed",
    "always_ask": "grey dashed",
    "always_colleague": "grey dashed",
    "never_ask": "grey dotted",
    "random": "grey mixed",
    "non_adaptive": "grey short",
    "non_adaptive_best": "purple short",
}
OTHER = "grey"
MEASURES = {
    "total_score": ("Total score", "reward per session"),
    "accuracy": ("Right answers", "share of sessions"),
    "asked_share": ("Asked", "share of sessions"),
}
TRACES = {
    "Credit": ("reward", {"credit_mean": "mean", "credit_spread": "standard deviation"}),
    "KL": ("nats per token", {"kl_nats": "to the SFT policy", "update_kl_nats": "within an update"}),
    "Entropy at function tokens": ("nats per token", {"entropy_nats": "entropy"}),
    "Explained variance": ("share", {"explained_variance": "of return plus credit"}),
    "Clipped tokens": ("share", {"clip_share": "clipped"}),
    "Gradient": ("norm before clipping", {"gradient_norm": "norm"}),
}
"""Charts of metrics: the unit, and the metrics with their names."""


def charts(report: Report) -> dict[str, list[Drawing]]:
    """The charts of a run, by the section of run.html.j2."""
    drawn = {
        "totals": [_totals(report)],
        "progress": [_progress(report, measure) for measure in MEASURES],
        "learning": [_traces(report, title) for title in TRACES],
        "stream": _stream(report),
        "asking": [_asking(report)],
    }
    return {section: [one for one in several if one is not None] for section, several in drawn.items()}


def frontier_charts(frontier: Frontier) -> list[Drawing]:
    """Accuracy against the asked share, and total score against price if there are several."""
    bought = Chart(
        title="Right answers against asks",
        unit="share of sessions",
        x_title="asked, share of sessions",
        series=[_bought(line, several=len(frontier.prices) > 1) for line in frontier.lines],
        x_range=(-0.03, 1.03),
        named=len(frontier.prices) == 1,
    )
    totals = Chart(
        title="Total score against price",
        unit="reward per session",
        x_title="price of one ask",
        series=[
            Series(
                name=line.entry,
                style=STYLES.get(line.entry, OTHER),
                spots=[
                    Spot(x=point.price, y=point.total_score.mean, y95=point.total_score.ci95 if _own(line) else None)
                    for point in line.points
                ],
                dots=_own(line),
            )
            for line in frontier.lines
        ],
    )
    found = [draw(bought), draw(totals) if len(frontier.prices) > 1 else None]
    return [one for one in found if one is not None]


def _bought(line: Line, *, several: bool) -> Series:
    return Series(
        name=line.entry,
        style=STYLES.get(line.entry, OTHER),
        spots=[
            Spot(
                x=point.asked_share.mean,
                y=point.accuracy.mean,
                x95=point.asked_share.ci95 if _own(line) else None,
                y95=point.accuracy.ci95 if _own(line) else None,
                label=f"{line.entry} at price {point.price:g}: right {point.accuracy.mean:.3f}, "
                f"asked {point.asked_share.mean:.3f}",
            )
            for point in line.points
        ],
        line=several,
        dots=True,
    )


def _own(line: Line) -> bool:
    return line.entry in ("ppo", ORACLE)


def _totals(report: Report) -> Drawing | None:
    entries = sorted(report.entries.items(), key=lambda item: -item[1].total_score)
    rows = [
        Row(name=name, style=STYLES.get(name, OTHER), value=entry.total_score, ci95=entry.ci95)
        for name, entry in entries
    ]
    return draw_rows("Total score with its 95 % interval", "reward per session", rows)


def _progress(report: Report, measure: str) -> Drawing | None:
    names = {"training": ("training, sampled", "sky"), "validation": ("validation, greedy", "blue")}
    series = [
        Series(
            name=name,
            style=style,
            spots=[Spot(x=point.iteration, y=getattr(point, measure)) for point in report.progress if point.of == of],
            dots=of == "validation",
        )
        for of, (name, style) in names.items()
    ]
    title, unit = MEASURES[measure]
    return draw(
        Chart(
            title=title,
            unit=unit,
            x_title="iteration of PPO",
            series=[one for one in series if one.spots],
            levels=[
                Level(name=name, style=STYLES[name], y=getattr(entry, measure))
                for name, entry in report.references.items()
                if name in STYLES
            ],
        )
    )


def _traces(report: Report, title: str) -> Drawing | None:
    unit, metrics = TRACES[title]
    styles = ("blue", "orange")
    series = [
        Series(name=name, style=style, spots=[Spot(x=iteration, y=value) for iteration, value in report.traces[metric]])
        for style, (metric, name) in zip(styles, metrics.items(), strict=False)
        if metric in report.traces
    ]
    return draw(Chart(title=title, unit=unit, x_title="iteration of PPO", series=series))


def _stream(report: Report) -> list[Drawing | None]:
    shown = {
        "asked_share": ("Asked", "share of sessions", (-0.03, 1.03)),
        "accuracy": ("Right answers", "share of sessions", (-0.03, 1.03)),
        "remembered": ("Memory", "sessions remembered", None),
    }
    return [
        draw(
            Chart(
                title=title,
                unit=unit,
                x_title="position in the stream, % of its sessions",
                series=_along(report.curves, measure),
                x_range=(0, 100),
                y_range=limits,
            )
        )
        for measure, (title, unit, limits) in shown.items()
    ]


def _along(curves: Mapping[str, Sequence], measure: str) -> list[Series]:
    return [
        Series(
            name=name,
            style=STYLES[name],
            spots=[Spot(x=50 * (part.start + part.end), y=getattr(part, measure)) for part in parts],
            dots=True,
        )
        for name, parts in curves.items()
        if all(getattr(part, measure) is not None for part in parts)
    ]


def _asking(report: Report) -> Drawing | None:
    if report.asking is None:
        return None
    spots = [
        Spot(
            x=one.predicted,
            y=one.happened,
            label=f"{one.sessions:,} sessions: probability {one.predicted:.3f}, the oracle asks in {one.happened:.3f}",
        )
        for one in report.asking.bins
    ]
    perfect = Series(name="equal", style="grey dotted", spots=[Spot(x=0, y=0), Spot(x=1, y=1)])
    return draw(
        Chart(
            title="The oracle asks",
            unit="share of sessions",
            x_title="the policy's probability of asking",
            series=[perfect, Series(name="ppo_sampled", style="sky", spots=spots, dots=True)],
            x_range=(-0.03, 1.03),
            y_range=(-0.03, 1.03),
        )
    )
