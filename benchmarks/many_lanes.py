"""Number 10: what a turn costs us besides its engine, with few lanes and with many.

The real pool, fleet, players, lanes and journals play scripted sessions on an engine, a tool and an expert that answer
at once (benchmarks/local_fleet.py): the processor time of the whole process is ours. Every lane plays the same number
of sessions, so what a lane costs once, such as reading its stream, has the same share of both.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agile_ray.weights import WeightsRef
from benchmarks.local_fleet import LocalPool, Waits, World, local_config
from benchmarks.ratios import Measured, Ratio

FEW, MANY = 100, 10_000
"""Lanes."""
SEATS = 50
"""Lanes that each of the two actors plays at once."""
BATCHES = 2
"""Each of one session of every lane."""
FEW_PLAYED = 10
"""Times that few lanes play before and after many, since they are done at once and a machine's speed varies."""
MOST_REPEATS = 2
"""Many lanes take most of a minute."""
LIMIT_MS = 1.0
"""Most that a turn may cost, milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the turns of some lanes cost together."""

    turns: int
    processor_s: float

    @property
    def turn_ms(self) -> float:
        """Of one turn, milliseconds."""
        return 1000 * self.processor_s / self.turns


def measure(numbers: Sequence[int], config: str, overrides: Sequence[str], *, repeats: int) -> list[Ratio]:
    """Measure number 10 in this process; `config` and `overrides` play no part."""
    del numbers, config, overrides
    play(FEW)  # warm up
    found: list[tuple[float, float]] = []
    for _ in range(min(repeats, MOST_REPEATS)):
        before = [play(FEW).turn_ms for _ in range(FEW_PLAYED)]
        many_ms = play(MANY).turn_ms
        after = [play(FEW).turn_ms for _ in range(FEW_PLAYED)]
        found.append((many_ms, statistics.mean(before + after)))
    remark = f"{BATCHES} sessions a lane, {2 * SEATS} seats, processor time"
    return [
        Ratio(
            number=10,
            name=f"our time a turn, {MANY:,} lanes / {FEW} lanes",
            bound="at most",
            aim=1.2,
            unit="ms",
            repeats=tuple(Measured(ours=many, baseline=few, ratio=many / few) for many, few in found),
            remark=remark,
        ),
        Ratio(
            number=10,
            name=f"our time a turn, {MANY:,} lanes / {LIMIT_MS:g} ms",
            bound="at most",
            aim=1.0,
            unit="ms",
            repeats=tuple(Measured(ours=many, baseline=LIMIT_MS, ratio=many / LIMIT_MS) for many, _ in found),
            remark=remark,
        ),
    ]


def play(lanes: int) -> Cost:
    """Play `BATCHES` batches of this many lanes."""
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        config = local_config(
            Path(folder), lanes=lanes, sessions_per_lane=1, iterations=BATCHES, max_age=0, actors=2, seats=SEATS
        )
        pool = LocalPool(config, World(Waits(), stream_sessions=BATCHES))
        try:
            begin_s = time.process_time()
            for batch in range(BATCHES):
                pool.load(WeightsRef(version=batch, buckets=(), blobs=(), probes=()))
                pool.collect()
            return Cost(turns=pool.turns, processor_s=time.process_time() - begin_s)
        finally:
            pool.shutdown()
