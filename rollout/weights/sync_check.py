"""Decides from logprobs whether an engine serves the weights it was given.

    before   [N] the engine on the probes' ids before the new version was loaded
    after    [N] the engine on the same ids with the new version
    learner  [N] what the new weights think of these ids, by the learner

A gap between `after` and `learner` alone is blind: in bfloat16 it is rounding noise, as large with the right weights as
with weights one small step old. So where the step is larger than that noise, `after` must also be nearer to the learner
than to what the engine said before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.errors import SyncError
from agile_ray.types import Float32

FLOAT32_GAP = 1e-3
"""Largest difference of one logprob, nats, when both sides compute in float32."""
GROWTH = 1.5
"""How much a bfloat16 gap may exceed the gap at start-up."""
BFLOAT16_FLOOR = 0.02
"""A mean bfloat16 gap below this is rounding, whatever it was at start-up: half a unit of a logit between 4 and 8."""
BFLOAT16_START = 0.15
"""Largest mean bfloat16 gap at start-up, nats; a stale LM head alone makes 0.18 (SmolLM2-135M; right weights: 0.05)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How far two sets of logprobs are apart, nats."""

    mean: float
    largest: float

    @classmethod
    def between(cls, left: Float32, right: Float32) -> "Gap":
        """Compare token by token; NaN counts as infinitely far."""
        apart = np.nan_to_num(np.abs(left.astype(np.float64) - right), nan=np.inf)
        return cls(mean=float(apart.mean()), largest=float(apart.max()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a check measured."""

    version: int
    gap: Gap  # engine to learner, with the new version
    moved: Gap  # engine to itself, before and after
    old: Gap  # engine before to learner now: what a stale engine would show


class SyncCheck:
    """Checks one engine's versions in the order they are loaded; the first load sets the bfloat16 baseline."""

    def __init__(self, *, exact: bool) -> None:
        """`exact`: engine and learner both compute in float32."""
        self._exact = exact
        self._start: float | None = None

    def check(self, version: int, *, before: Float32, after: Float32, learner: Float32) -> SyncReport:
        """Accept a version, or say why not.

        Raises:
            SyncError: the engine's logprobs are not those of the new weights.
        """
        report = SyncReport(
            version=version,
            gap=Gap.between(after, learner),
            moved=Gap.between(after, before),
            old=Gap.between(before, learner),
        )
        where = f"rollout: version {version} is not what the engine serves"
        if self._exact:
            measured, limit, noise = report.gap.largest, FLOAT32_GAP, FLOAT32_GAP
        else:
            start = BFLOAT16_START / GROWTH if self._start is None else self._start
            measured, limit, noise = report.gap.mean, max(GROWTH * start, BFLOAT16_FLOOR), 2 * start
        if measured > limit:
            raise SyncError(
                f"{where}: its logprobs are {measured:.2g} nats from the learner's, the limit is {limit:.2g}"
            )
        if report.old.mean > noise and report.moved.mean <= report.gap.mean:
            raise SyncError(
                f"{where}: its logprobs are nearer to the old weights ({report.moved.mean:.2g} nats) than to the new "
                f"({report.gap.mean:.2g} nats)"
            )
        if self._start is None:
            self._start = report.gap.mean
        return report


def flat(rows: Sequence[Float32]) -> Float32:
    """Join the logprobs of several sequences, leaving out their first tokens, which nothing predicts."""
    return np.concatenate([row[1:] for row in rows])
