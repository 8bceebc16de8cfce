"""What a rank reports to the driver, which loads neither torch nor DeepSpeed to read it."""

from dataclasses import dataclass

from agile_ray.types import Scores
from learner.ragged import Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What one rank measured in one optimizer step; sums over its action tokens, but for the norm."""

    loss: float  # this rank's share of the objective, already divided by the step's action tokens
    policy: float = 0.0
    value: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0
    clipped: float = 0.0
    deviation: float = 0.0
    gradient_norm: float = 0.0  # of the whole step, the same on every rank


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedScores:
    """Scores of the action tokens that one rank computed."""

    places: Int64  # [A], among all action tokens of the call
    scores: Scores
