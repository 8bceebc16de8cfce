"""What a rank reports to the driver, which loads neither torch nor DeepSpeed to read it."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from agile_ray.types import TokenScores
from learner.ragged import Int64, join_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What one rank measured in one optimizer step; sums over its action tokens, but for loss and norm.

    KL, entropy and write in nats, value in reward^2, policy in nats (imitation) or deviations of advantages (PPO).
    """

    loss: float  # this rank's share of the objective, already divided by the step's action tokens
    actions: float = 0.0  # action tokens
    functions: float = 0.0  # of them, function tokens
    policy: float = 0.0
    value: float = 0.0
    write: float = 0.0
    kl: float = 0.0  # estimate of KL(policy || reference)
    update_kl: float = 0.0  # of KL(before the update || now)
    entropy: float = 0.0  # at function tokens only
    clipped: float = 0.0
    deviation: float = 0.0
    gradient_norm: float = 0.0  # of the whole step, the same on every rank


def add(measured: Iterable[Sums], *, gradient_norm: float) -> Sums:
    """Sum field by field, but for the norm, which is given."""
    columns = zip(*(astuple(sums) for sums in measured), strict=True)
    totals = dict(zip(Sums.__slots__, map(sum, columns), strict=True))
    return Sums(**totals | {"gradient_norm": gradient_norm})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedScores:
    """TokenScores of the action tokens that one rank computed."""

    places: Int64  # [A], among all action tokens of the call
    scores: TokenScores


def placed(parts: Sequence[PlacedScores]) -> TokenScores:
    """Put what all ranks computed in order; together they cover every action token once."""
    order = np.argsort(np.concatenate([part.places for part in parts]))
    together = join_scores([part.scores for part in parts])
    return TokenScores(**{name: getattr(together, name)[order] for name in TokenScores.__slots__})
