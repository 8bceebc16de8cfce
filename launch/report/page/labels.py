"""Names beside the points of a chart, where they overlap neither points nor one another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

CHARACTER, LINE = 6.9, 11.0
"""Pixels that a character is wide, on average in a wide font, and that a line is high."""
DOT = 4.0
"""Pixels from the middle of a point to its edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A name beside a point, in pixels from the top left of the chart."""

    text: str
    x: float  # where the text is anchored
    y: float  # of its baseline
    anchor: str  # start, middle or end, as in SVG


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "_Box") -> float:
        """Square pixels that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)


def place(points: Mapping[str, tuple[float, float]], *, within: tuple[float, float, float, float]) -> Sequence[Label]:
    """Place the name of each point to its right or left, above or below.

    From the lowest point to the highest, each name takes the first of these places that is free, else the one that
    covers least. A later name makes way for an earlier one, never the other way round.

    Args:
        points: of each name, x and y.
        within: left, top, right and bottom edge.
    """
    frame = _Box(*within)
    taken = [_Box(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in points.values()]
    found: list[Label] = []
    for text, (x, y) in sorted(points.items(), key=lambda item: (-item[1][1], item[1][0])):
        own = _Box(x - DOT, y - DOT, x + DOT, y + DOT)
        others = [box for box in taken if box != own]

        def covered(label: Label, others: Sequence[_Box] = others) -> float:
            box = _box(label)
            size = (box.right - box.left) * (box.bottom - box.top)
            return sum(box.overlap(other) for other in others) + 10 * (size - box.overlap(frame))

        best = min(_around(text, x, y), key=covered)
        found.append(best)
        taken.append(_box(best))
    return found


def _around(text: str, x: float, y: float) -> Iterator[Label]:
    """Where the name can stand, best first."""
    for down in (0.0, -0.6 * LINE, 0.6 * LINE, -LINE, LINE):
        for anchor, side in (("start", 1), ("end", -1)):
            yield Label(text=text, x=x + side * (DOT + 2), y=y + 0.35 * LINE + down, anchor=anchor)
    yield Label(text=text, x=x, y=y - DOT - 3, anchor="middle")
    yield Label(text=text, x=x, y=y + DOT + LINE, anchor="middle")


def _box(label: Label) -> _Box:
    width = CHARACTER * len(label.text)
    left = label.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[label.anchor] * width
    return _Box(left, label.y - 0.85 * LINE, left + width, label.y + 0.15 * LINE)
