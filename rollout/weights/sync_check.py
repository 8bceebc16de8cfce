"""Decides from logprobs whether an engine serves the weights that it was given.

    before   [N] the engine's logprobs of the probes' ids with the old version
    after    [N] the engine's logprobs of the same ids with the new version
    learner  [N] the learner's logprobs of these ids with the new version

The gap between `after` and `learner` is not enough: in bfloat16 it is rounding noise, which is as large with the right
weights as with weights that are one optimizer step old. Where the step exceeds the noise, `after` must therefore also
be nearer to `learner` than to `before`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.errors import SyncError
from agile_ray.types import Float32

FLOAT32_GAP = 1e-3
"""Largest difference of one logprob, nats, when both sides compute in float32."""
GROWTH = 1.5
"""Factor by which a bfloat16 gap may exceed the gap at start-up."""
BFLOAT16_FLOOR = 0.02
"""Mean bfloat16 gap that always passes as rounding, nats: half the spacing of bfloat16 logits between 4 and 8."""
BFLOAT16_START = 0.15
"""Largest mean bfloat16 gap at start-up, nats; a stale LM head alone exceeds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How far two sets of logprobs are apart, nats."""

    mean: float
    largest: float

    @classmethod
    def between(cls, left: Float32, right: Float32) -> "Gap":
        """Compare token by token; a NaN counts as an infinite difference."""
        apart = np.nan_to_num(np.abs(left.astype(np.float64) - right), nan=np.inf)
        return cls(mean=float(apart.mean()), largest=float(apart.max()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """The gaps that a check measured."""

    version: int
    gap: Gap  # between `after` and `learner`
    moved: Gap  # between `after` and `before`
    old: Gap  # between `before` and `learner`: the gap of an engine that still serves the old version


class SyncCheck:
    """Checks the versions of one engine in the order of loading; the first one sets the gap at start-up."""

    def __init__(self, *, exact: bool) -> None:
        """`exact`: engine and learner both compute in float32."""
        self._exact = exact
        self._start: float | None = None

    def check(self, version: int, *, before: Float32, after: Float32, learner: Float32) -> SyncReport:
        """Accept a version.

        Raises:
            SyncError: the engine's logprobs are not those of the new weights; the message says which gap is too large.
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


def flat(sequences: Sequence[Float32]) -> Float32:
    """Join the logprobs of several sequences without their first tokens, which have no logprob."""
    return np.concatenate([sequence[1:] for sequence in sequences])
