"""Decides from logprobs whether an engine serves the weights that it was given.

    before   [N] the engine's logprobs of the probes' ids with the old version
    after    [N] the engine's logprobs of the same ids with the new version
    learner  [N] the learner's logprobs of these ids with the new version

Two rules, both on the same ids:

    gap       in float32 `after` is at most FLOAT32_GAP from `learner` at every token; in bfloat16 the mean gap is at
              most GROWTH times that at start-up
    nearness  the engine is nearer to the new weights than to the old ones

The gap alone is blind in bfloat16: rounding is as large with the right weights as with weights that are one optimizer
step old. Rounding also moves with the weights, so it blurs nearness. From the second version on, the learner's own step
`learner - learner of the version before` says where the engine has to go, and the regression of the engine's move
`after - before` on it has slope 1 with the new weights and slope 0 with the old ones. An engine is nearer to the old
weights if the slope is below 1/2 by more than its standard errors explain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.errors import SyncError
from agile_ray.types import Float32, Float64

FLOAT32_GAP = 1e-3
"""Largest difference of one logprob, nats, when both sides compute in float32."""
GROWTH = 1.5
"""Factor by which a bfloat16 gap may exceed the gap at start-up."""
BFLOAT16_FLOOR = 0.02
"""Mean bfloat16 gap that always passes as rounding, nats: half the spacing of bfloat16 logits between 4 and 8."""
BFLOAT16_START = 0.15
"""Largest mean bfloat16 gap at start-up, nats; a stale LM head alone exceeds it."""
SMALLEST_STEP = 1e-3
"""Mean step of the learner's logprobs, nats, up to which nearness is not judged: bfloat16 logits may hide all of it."""
STANDARD_ERRORS = 8.0
"""How many standard errors the slope must be below 1/2. So many, because tokens of one sequence are not independent."""


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
        self._learner: Float32 | None = None  # its logprobs with the last version that was accepted

    def check(self, version: int, *, before: Float32, after: Float32, learner: Float32) -> SyncReport:
        """Accept a version.

        Args:
            version: its number.
            before: NaN where the engine had no whole version to score; then only the gap is checked.
            after: with the new version.
            learner: with the new version.

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
        measured = report.gap.largest if self._exact else report.gap.mean
        if measured > self._limit:
            raise SyncError(
                f"{where}: its logprobs are {measured:.2g} nats from the learner's, the limit is {self._limit:.2g}"
            )
        if self._stale(report, before=before, after=after, learner=learner):
            raise SyncError(
                f"{where}: its logprobs are nearer to the old weights ({report.moved.mean:.2g} nats) than to the new "
                f"({report.gap.mean:.2g} nats)"
            )
        if self._start is None:
            self._start = report.gap.mean
        self._learner = learner
        return report

    @property
    def _limit(self) -> float:
        """Largest gap, nats: of one token in float32, of the mean in bfloat16."""
        if self._exact:
            return FLOAT32_GAP
        return BFLOAT16_START if self._start is None else max(GROWTH * self._start, BFLOAT16_FLOOR)

    def _stale(self, report: SyncReport, *, before: Float32, after: Float32, learner: Float32) -> bool:
        """Whether the engine is nearer to the old weights than to the new ones."""
        if self._exact or self._learner is None or self._learner.shape != learner.shape:
            # Without the learner's step: the old version must be farther away than an accepted gap explains.
            noise = FLOAT32_GAP if self._exact else 2 * self._limit / GROWTH
            return report.old.mean > noise and report.moved.mean <= report.gap.mean
        if not np.isfinite(before).all():
            return False
        step = learner.astype(np.float64) - self._learner
        return np.abs(step).mean() > SMALLEST_STEP and _moved_less_than_half(after.astype(np.float64) - before, step)


def _moved_less_than_half(move: Float64, step: Float64) -> bool:
    """Whether the slope of `move` on `step`, [N] nats each, is below 1/2 by more than `STANDARD_ERRORS` explain."""
    square = float(step @ step)
    slope = float(move @ step) / square
    rest = move - slope * step
    standard_error = math.sqrt(float(rest @ rest) / len(rest) / square)
    return slope + STANDARD_ERRORS * standard_error < 0.5


def flat(sequences: Sequence[Float32]) -> Float32:
    """Join the logprobs of several sequences without their first tokens, which have no logprob."""
    return np.concatenate([sequence[1:] for sequence in sequences])
