"""Compares a replay with the run that it repeats: stored sessions, credit and the learner's losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event, Line
from agile_ray.record.parquet.columns import LEARNED

if TYPE_CHECKING:
    import pyarrow as pa

LOSSES = ("loss", "policy_loss", "value_loss")
TOLERANCE = 1e-3
"""Relative difference of losses that counts as equal. Losses are sums of floats, which depend on the order of
micro-batches, and so on the machine and the number of ranks. Credit has no tolerance."""

Losses = Mapping[str, float]
"""LOSSES by name; {} if the iteration has no line in the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPair:
    """One loss, in the run and in its replay."""

    run: float
    replay: float

    @property
    def distance(self) -> float:
        """|replay - run| as a share of the larger of |replay| and |run|."""
        largest = max(abs(self.run), abs(self.replay))
        return abs(self.replay - self.run) / largest if largest else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One iteration of a run and of its replay."""

    iteration: int
    segments: int  # that the run stored
    differing: dict[str, int]  # number of segments that differ, by column; without equal columns and without credit
    credit_differing: int  # segments
    credit_distance: float  # largest |difference|, reward
    losses: dict[str, LossPair]  # by name; only losses that both have

    @property
    def same(self) -> bool:
        """Whether stored sessions and credit are equal bit for bit, and every loss within TOLERANCE."""
        stored = not self.differing and not self.credit_differing
        return stored and all(pair.distance <= TOLERANCE for pair in self.losses.values())


def losses(lines: Sequence[Line]) -> dict[int, Losses]:
    """The learner's losses, by iteration."""
    return {
        line.iteration: {name: line.metrics[name] for name in LOSSES if name in line.metrics}
        for line in lines
        if line.event is Event.ITERATION
    }


def compare(
    iteration: int, *, run: RunFolder, replay: RunFolder, run_losses: Losses, replay_losses: Losses
) -> Comparison:
    """Compare an iteration that both have stored.

    What the learner computed for each token is left out: such floats depend on the machine, as losses do.

    Args:
        iteration: number of the iteration.
        run: the run's folder.
        replay: the replay's folder.
        run_losses: of the iteration.
        replay_losses: of the iteration.

    Raises:
        ConfigError: a file is missing, or its schema is another version's.
    """
    original, repeated = store.table(run, iteration), store.table(replay, iteration)
    left_out = {*LEARNED, "credit_shares"}  # the shares are parts of `credit`
    repeatable = [name for name in original.column_names if name not in left_out]
    counts = {name: _differing(original[name], repeated[name]) for name in repeatable}
    return Comparison(
        iteration=iteration,
        segments=original.num_rows,
        differing={name: count for name, count in counts.items() if count and name != "credit"},
        credit_differing=counts["credit"],
        credit_distance=_distance(original["credit"], repeated["credit"]),
        losses={
            name: LossPair(run=run_losses[name], replay=replay_losses[name])
            for name in LOSSES
            if name in run_losses and name in replay_losses
        },
    )


def _differing(original: "pa.ChunkedArray", repeated: "pa.ChunkedArray") -> int:
    """Number of values that differ; a value that only one side has counts as different."""
    if original.equals(repeated):
        return 0
    left, right = original.to_pylist(), repeated.to_pylist()
    return sum(one != other for one, other in zip(left, right, strict=False)) + abs(len(left) - len(right))


def _distance(original: "pa.ChunkedArray", repeated: "pa.ChunkedArray") -> float:
    """Largest difference of the values that both have; null, which marks untrained segments, has no distance."""
    common = min(len(original), len(repeated))
    left, right = (np.array(column.to_pylist()[:common], dtype=np.float64) for column in (original, repeated))
    return float(np.nanmax(np.abs(left - right), initial=0.0)) if common else 0.0
