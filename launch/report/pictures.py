"""Pictures of a run as PNG bytes, drawn by matplotlib without a display, in colours that colour-blind readers can
tell apart.

A picture is 9 inches wide and shown 900 pixels wide, so 1 point is 1.4 pixels. The smallest letters have 9.5 points.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from launch.report.summary import LEARNED, ORACLE, Point, Report

# The palette of Okabe and Ito.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#767676"
COLOURS = {"ppo": BLUE, "ppo_sampled": SKY, "sft": RED, "sft_sampled": ORANGE, ORACLE: GREEN}
REFERENCE_STYLES = {
    ORACLE: (GREEN, "-"),
    "ask_unless_search": (PURPLE, "--"),
    "always_ask": (GREY, "--"),
    "never_ask": (GREY, ":"),
    "random": (GREY, "-."),
    "non_adaptive": (GREY, (0, (5, 1, 1, 1, 1, 1))),
    "non_adaptive_best": (GREY, (0, (1, 3))),
}
MARKS = {"sft": "s", "ppo": "o", ORACLE: "D"}
MEASURES = {
    "total_score": "total score\n(reward per session)",
    "accuracy": "accuracy\n(share of sessions)",
    "asked_share": "asked\n(share of sessions)",
}


def progress(report: Report) -> bytes:
    """Total score, accuracy and asked share over iterations, the references as horizontal lines."""
    figure = Figure(figsize=(9, 10.5), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(3, 1, sharex=True)
    for axis, (measure, label) in zip(axes, MEASURES.items(), strict=True):
        _course(axis, report.progress, measure)
        _levels(axis, {name: getattr(entry, measure) for name, entry in report.references.items()})
        _dress(axis, ylabel=label)
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=4, frameon=False, fontsize=10, borderaxespad=0)
    axes[-1].set_xlabel("iteration of PPO", fontsize=11)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def along_the_stream(report: Report) -> bytes:
    """Asked share and accuracy over the position in the stream; the asked share should fall as memory fills."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2, sharex=True)
    for axis, measure in zip(axes, ("asked_share", "accuracy"), strict=True):
        for name, bins in report.curves.items():
            axis.plot(
                [50 * (part.start + part.end) for part in bins],
                [getattr(part, measure) for part in bins],
                color=COLOURS[name],
                marker=MARKS[name],
                markersize=5,
                linewidth=1.8,
                label=name,
            )
        _dress(axis, ylabel=MEASURES[measure].replace("\n", " "))
        axis.set_xlabel("position in the stream (% of its sessions)", fontsize=11)
        axis.set_xlim(0, 100)
        axis.set_ylim(-0.03, 1.03)
    axes[0].legend(frameon=False, fontsize=10)
    return _png(figure)


def totals(report: Report) -> bytes:
    """Total score of every policy with its 95 % interval, the best one on top."""
    entries = sorted(report.entries.items(), key=lambda item: item[1].total_score)
    figure = Figure(figsize=(9, 0.9 + 0.36 * len(entries)), layout="constrained")
    axis = figure.subplots()
    for height, (name, entry) in enumerate(entries):
        low, high = entry.ci95 or (entry.total_score, entry.total_score)
        colour = COLOURS.get(name, GREY)
        axis.plot([low, high], [height, height], color=colour, linewidth=2.4, solid_capstyle="butt")
        axis.plot([entry.total_score], [height], "o" if name in LEARNED else "D", color=colour, markersize=7)
        axis.annotate(
            f"{entry.total_score:.3f}",
            (high, height),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
        )
    axis.set_yticks(range(len(entries)), [name for name, _ in entries])
    axis.set_ylim(-0.6, len(entries) - 0.4)
    axis.margins(x=0.1)
    _dress(axis, ylabel="")
    axis.grid(axis="x", color="#e4e4e4")
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("total score (reward per session) with its 95 % interval", fontsize=11)
    return _png(figure)


def _course(axis: Axes, points: Sequence[Point], measure: str) -> None:
    styles = {"training": (SKY, "", 1.4), "validation": (BLUE, "o", 2.2)}
    for name, (colour, mark, width) in styles.items():
        chosen = [point for point in points if point.of == name]
        if not chosen:  # a run without evaluations on validation
            continue
        label = {"training": "training, sampled", "validation": "validation, greedy"}[name]
        axis.plot(
            [point.iteration for point in chosen],
            [getattr(point, measure) for point in chosen],
            color=colour,
            marker=mark,
            markersize=5,
            linewidth=width,
            label=label,
            zorder=3,
        )


def _levels(axis: Axes, levels: Mapping[str, float]) -> None:
    """Draw the references as horizontal lines, with names at the right edge that do not overlap."""
    shown = {name: level for name, level in levels.items() if name in REFERENCE_STYLES}
    for name, level in shown.items():
        colour, style = REFERENCE_STYLES[name]
        axis.axhline(level, color=colour, linestyle=style, linewidth=1.2, zorder=2)
    low, high = axis.get_ylim()
    names = sorted(shown, key=lambda name: shown[name])
    heights = spread([(shown[name] - low) / (high - low) for name in names], gap=0.075)
    for name, height in zip(names, heights, strict=True):
        axis.annotate(
            name,
            (1, (shown[name] - low) / (high - low)),
            xytext=(1.025, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=9.5,
            color="#333333",
            arrowprops={"arrowstyle": "-", "color": "#b0b0b0", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
        )
    axis.set_ylim(low, high)


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Move ascending heights apart by at least `gap`; heights that must move stay centred on their mean."""
    groups: list[list[float]] = []  # [centre, size]
    for height in heights:
        groups.append([height, 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            centre, size = groups.pop()
            before, count = groups.pop()
            groups.append([(centre * size + before * count) / (size + count), size + count])
    return [centre + gap * (index - (size - 1) / 2) for centre, size in groups for index in range(int(size))]


def _dress(axis: Axes, *, ylabel: str) -> None:
    axis.set_ylabel(ylabel, fontsize=11)
    axis.tick_params(labelsize=10)
    axis.grid(color="#e4e4e4")
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
