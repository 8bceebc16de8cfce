"""Charts as numbers that a template draws as SVG.

    Chart     what is shown: series of points with intervals, levels
    Drawing   the same in pixels, which chart.svg.j2 turns into elements

A drawing is 360 pixels wide, so on a telephone its letters have their own size; wider pages put several side by side.
Colours are classes of style.css, which has two of each: for light pages and for dark ones.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launch.report.page.labels import Label, place

WIDTH, HEIGHT = 360.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 10.0, 36.0
"""Margins of the plot."""
ROW, NAMES = 22.0, 128.0
"""Height of a row, and width of the names, in a chart of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One point of a series."""

    x: float
    y: float
    x95: tuple[float, float] | None = None  # intervals
    y95: tuple[float, float] | None = None
    label: str = ""  # shown where the pointer rests


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points that belong together."""

    name: str
    style: str  # class of style.css
    spots: Sequence[Spot]
    line: bool = True  # joins the points
    dots: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A horizontal line."""

    name: str
    style: str
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Series over a common axis."""

    title: str
    unit: str  # of the vertical axis
    x_title: str
    series: Sequence[Series]
    levels: Sequence[Level] = ()
    x_range: tuple[float, float] | None = None  # None: of the points
    y_range: tuple[float, float] | None = None
    named: bool = False  # each series has its name beside its only point, and the chart no legend


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A value with its interval, beside others."""

    name: str
    style: str
    value: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark of an axis."""

    at: float  # pixels
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A line through points."""

    style: str
    points: str  # "x,y x,y", pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A point."""

    style: str
    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A line of the legend."""

    name: str
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A chart in pixels, from the top left."""

    title: str
    unit: str
    x_title: str
    width: float
    height: float
    left: float  # these three: edges of the plot
    right: float
    bottom: float
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    names: bool  # the vertical axis has names instead of numbers
    strokes: Sequence[Stroke]
    dots: Sequence[Dot]
    labels: Sequence[Label]
    keys: Sequence[Key]


def draw(chart: Chart) -> Drawing | None:
    """Lay a chart out; None if it has no points."""
    spots = [spot for series in chart.series for spot in series.spots]
    if not spots:
        return None
    x_low, x_high = chart.x_range or _range([spot.x for spot in spots], pad=0.0)
    heights = [end for spot in spots for end in (spot.y, *(spot.y95 or ()))] + [level.y for level in chart.levels]
    y_low, y_high = chart.y_range or _range(heights, pad=0.06)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x_at, y_at = _scale(x_low, x_high, LEFT, right), _scale(y_low, y_high, bottom, TOP)
    levels = [
        Stroke(style=level.style, points=_points([(LEFT, y_at(level.y)), (right, y_at(level.y))]))
        for level in chart.levels
    ]
    return Drawing(
        title=chart.title,
        unit=chart.unit,
        x_title=chart.x_title,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=right,
        bottom=bottom,
        x_ticks=[Tick(at=x_at(value), text=f"{value:g}") for value in ticks(x_low, x_high)],
        y_ticks=[Tick(at=y_at(value), text=f"{value:g}") for value in ticks(y_low, y_high)],
        names=False,
        strokes=[*levels, *(stroke for series in chart.series for stroke in _strokes(series, x_at, y_at))],
        dots=[
            Dot(style=series.style, x=round(x_at(spot.x), 1), y=round(y_at(spot.y), 1), label=spot.label)
            for series in chart.series
            if series.dots
            for spot in series.spots
        ],
        labels=place(
            {one.name: (x_at(spot.x), y_at(spot.y)) for one in chart.series for spot in one.spots if chart.named},
            within=(LEFT, 0.0, WIDTH, bottom),
        ),
        keys=[Key(name=one.name, style=one.style) for one in (*chart.series, *chart.levels) if not chart.named],
    )


def draw_rows(title: str, unit: str, rows: Sequence[Row]) -> Drawing | None:
    """Lay out a row for each value, in their order; None without rows."""
    if not rows:
        return None
    low, high = _range([end for row in rows for end in (row.value, *(row.ci95 or ()))], pad=0.04)
    bottom = TOP + ROW * len(rows)
    x_at = _scale(low, high, NAMES, WIDTH - RIGHT)
    heights = [round(TOP + ROW * (index + 0.5), 1) for index in range(len(rows))]
    return Drawing(
        title=title,
        unit=unit,
        x_title=unit,
        width=WIDTH,
        height=bottom + BOTTOM,
        left=NAMES,
        right=WIDTH - RIGHT,
        bottom=bottom,
        x_ticks=[Tick(at=x_at(value), text=f"{value:g}") for value in ticks(low, high)],
        y_ticks=[Tick(at=height, text=row.name) for row, height in zip(rows, heights, strict=True)],
        names=True,
        strokes=[
            Stroke(style=f"{row.style} interval", points=_points([(x_at(end), height) for end in row.ci95]))
            for row, height in zip(rows, heights, strict=True)
            if row.ci95
        ],
        dots=[
            Dot(style=row.style, x=round(x_at(row.value), 1), y=height, label=f"{row.name}: {row.value:.3f}")
            for row, height in zip(rows, heights, strict=True)
        ],
        labels=[],
        keys=[],
    )


def ticks(low: float, high: float, *, about: int = 6) -> list[float]:
    """Round numbers from low to high, at steps of 1, 2 or 5 times a power of ten; about as many as asked for."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _range(values: Sequence[float], *, pad: float) -> tuple[float, float]:
    """The values' range, wider by a share on each side; never empty."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    margin = pad * (high - low)
    return low - margin, high + margin


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    def at(value: float) -> float:
        return start + (end - start) * (value - low) / (high - low)

    return at


def _strokes(series: Series, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> list[Stroke]:
    found = []
    if series.line:
        found.append(Stroke(style=series.style, points=_points([(x_at(s.x), y_at(s.y)) for s in series.spots])))
    for spot in series.spots:
        if spot.x95:
            ends = [(x_at(end), y_at(spot.y)) for end in spot.x95]
            found.append(Stroke(style=f"{series.style} interval", points=_points(ends)))
        if spot.y95:
            ends = [(x_at(spot.x), y_at(end)) for end in spot.y95]
            found.append(Stroke(style=f"{series.style} interval", points=_points(ends)))
    return found


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)
