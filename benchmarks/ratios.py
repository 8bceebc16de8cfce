"""What a benchmark reports: ratios, each of two measurements that were taken alternately in one run on one machine."""

import json
import math
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

TITLES = ("#", "ratio", "aim", "median", "lowest to highest", "repeats", "ours", "baseline", "remark")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One repeat of one ratio."""

    ours: float
    baseline: float
    ratio: float  # of the two, in the direction that `Ratio.name` says


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One ratio over its repeats."""

    number: int  # in docs/benchmarks.md
    name: str
    bound: Literal["at least", "at most"]
    aim: float
    unit: str  # of both measurements
    repeats: tuple[Measured, ...]  # at least one
    remark: str = ""  # what was measured

    @property
    def median(self) -> float:
        """Of the repeats' ratios."""
        return statistics.median(one.ratio for one in self.repeats)

    @property
    def is_met(self) -> bool:
        """Whether the median is at its aim."""
        return self.median >= self.aim if self.bound == "at least" else self.median <= self.aim

    def cells(self) -> tuple[str, ...]:
        """The line of the table, in the order of TITLES."""
        ratios = [one.ratio for one in self.repeats]
        ours, baseline = (
            statistics.median(getattr(one, name) for one in self.repeats) for name in ("ours", "baseline")
        )
        return (
            str(self.number),
            self.name,
            f"{self.bound} {self.aim:g}",
            f"{self.median:.3f}{'' if self.is_met else ' (missed)'}",
            f"{min(ratios):.3f} to {max(ratios):.3f}",
            str(len(ratios)),
            f"{_short(ours)} {self.unit}",
            f"{_short(baseline)} {self.unit}",
            self.remark,
        )

    def record(self) -> dict[str, object]:
        """As JSON, every repeat included."""
        return asdict(self) | {"median": self.median, "met": self.is_met}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A ratio that was asked for and not measured."""

    number: int
    why: str


def table(ratios: Sequence[Ratio], left_out: Sequence[LeftOut] = ()) -> str:
    """A Markdown table, a line for each ratio; below it, what is missing."""
    lines = [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
    for ratio in sorted(ratios, key=lambda one: (one.number, one.name)):
        lines.append(f"| {' | '.join(ratio.cells())} |")
    missing = [f"\nNot measured: number {one.number}, {one.why}." for one in left_out]
    return "\n".join([*lines, *missing])


def write(path: Path, ratios: Sequence[Ratio], left_out: Sequence[LeftOut], *, settings: dict[str, str]) -> None:
    """Write everything that was measured, with the machine and the settings."""
    machine = {"machine": platform.platform(), "processor": _processor(), "python": platform.python_version()}
    content = {
        "machine": machine,
        "settings": settings,
        "ratios": [ratio.record() for ratio in ratios],
        "left_out": [asdict(one) for one in left_out],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def _short(value: float) -> str:
    """Three significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
