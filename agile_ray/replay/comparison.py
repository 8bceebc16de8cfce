"""Says where a replay differs from the run that it replays: in what was stored, in credit, in the learner's losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from agile_ray.record import store
from agile_ray.record.history import Event, Line

LOSSES = ("loss", "policy_loss", "value_loss")
TOLERANCE = 1e-3
"""Of a loss, as a share of it. On one machine there is no difference at all; where micro-batches summed in another
order, six iterations moved losses by up to 2e-5 of themselves, and the credit of `linked` by 2e-7, which is let pass
nowhere."""

Losses = Mapping[str, float]
"""LOSSES by name; {} where an iteration has no line in the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One figure, in the run and in its replay."""

    run: float
    replay: float

    @property
    def distance(self) -> float:
        """|replay - run| as a share of the larger."""
        largest = max(abs(self.run), abs(self.replay))
        return abs(self.replay - self.run) / largest if largest else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One iteration of a run and of its replay."""

    iteration: int
    rows: int  # segments that the run stored
    differing: dict[str, int]  # rows by column, bit for bit; columns that are alike and credit left out
    credit_differing: int  # rows
    credit_distance: float  # the largest |difference|, reward
    losses: dict[str, Pair]  # by name, where both have them

    @property
    def same(self) -> bool:
        """What was stored and credited is equal bit for bit, and every loss within TOLERANCE."""
        stored = not self.differing and not self.credit_differing
        return stored and all(pair.distance <= TOLERANCE for pair in self.losses.values())


def losses(lines: Sequence[Line]) -> dict[int, Losses]:
    """What the learner measured, by iteration."""
    return {
        line.iteration: {name: line.metrics[name] for name in LOSSES if name in line.metrics}
        for line in lines
        if line.event is Event.ITERATION
    }


def compare(iteration: int, *, run: Path, replay: Path, run_losses: Losses, replay_losses: Losses) -> Comparison:
    """Compare an iteration.

    Args:
        iteration: stored in both.
        run: folder of the run's segments.
        replay: folder of the replay's.
        run_losses: of the iteration.
        replay_losses: of the iteration.

    Raises:
        ConfigError: a file is missing, or its schema is another version's.
    """
    before, after = store.table(run, iteration), store.table(replay, iteration)
    counts = {name: _differing(before[name], after[name]) for name in before.column_names}
    return Comparison(
        iteration=iteration,
        rows=before.num_rows,
        differing={name: count for name, count in counts.items() if count and name != "credit"},
        credit_differing=counts["credit"],
        credit_distance=_distance(before["credit"], after["credit"]),
        losses={
            name: Pair(run=run_losses[name], replay=replay_losses[name])
            for name in LOSSES
            if name in run_losses and name in replay_losses
        },
    )


def _differing(before: pa.ChunkedArray, after: pa.ChunkedArray) -> int:
    """Rows that are not equal; a row that only one side has is not."""
    if before.equals(after):
        return 0
    left, right = before.to_pylist(), after.to_pylist()
    return sum(one != other for one, other in zip(left, right, strict=False)) + abs(len(left) - len(right))


def _distance(before: pa.ChunkedArray, after: pa.ChunkedArray) -> float:
    """The largest difference of rows that both have; null, which is not trained on, has no distance."""
    rows = min(len(before), len(after))
    left, right = (np.array(column.to_pylist()[:rows], dtype=np.float64) for column in (before, after))
    return float(np.nanmax(np.abs(left - right), initial=0.0)) if rows else 0.0
