"""The driver's part of PPO: what every action token aims at, and what the figures of a step say.

A = action tokens of all rows, in the order of the rows; rows of one session stand side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.config import PPO
from agile_ray.types import Float32, TrainingRow
from learner.advantages import explained_variance, gae, whiten
from learner.ragged import Int64, join, join_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What stays fixed while PPO runs its epochs; entry k belongs to the k-th action token of the rows."""

    behavior_logprobs: Float32  # [A], nats, the engine when it sampled the token
    old_logprobs: Float32  # [A], nats, the learner before the first epoch
    reference_logprobs: Float32  # [A], nats, the frozen reference policy
    values: Float32  # [A], the critic before the first epoch
    advantages: Float32  # [A], whitened over the whole update
    returns: Float32  # [A], what the critic should have said


def make_targets(rows: Sequence[TrainingRow], ppo: PPO) -> tuple[Targets, dict[str, float]]:
    """Estimate advantages and returns of all action tokens, and say how they look."""
    scores = join_scores([row.scores for row in rows])
    advantages_A = gae(
        _own_rewards(rows), scores.values, _session_numbers(rows), discount=ppo.discount, decay=ppo.decay
    )
    returns_A = advantages_A + scores.values
    behavior_A = _behavior_logprobs(rows)
    figures = {
        "advantage_mean": float(advantages_A.mean(dtype=np.float64)),
        "advantage_std": float(advantages_A.std(dtype=np.float64)),
        "explained_variance": explained_variance(scores.values, returns_A),
        "behavior_gap_nats": float(np.abs(scores.logprobs - behavior_A).mean()),
    }
    targets = Targets(
        behavior_logprobs=behavior_A,
        old_logprobs=scores.logprobs,
        reference_logprobs=scores.reference_logprobs,
        values=scores.values,
        advantages=whiten(advantages_A),
        returns=returns_A,
    )
    return targets, figures


def _own_rewards(rows: Sequence[TrainingRow]) -> Float32:
    """Own rewards of the action tokens plus each row's credit on its last one, float32 [A]."""
    rewards = []
    for row in rows:
        earned = row.segment.rewards[row.segment.action_mask].astype(np.float32)
        if len(earned):
            earned[-1] += row.credit
        rewards.append(earned)
    return join(rewards, np.float32)


def _session_numbers(rows: Sequence[TrainingRow]) -> Int64:
    """Number the sessions that the action tokens belong to, int64 [A]; rows of one session stand side by side."""
    numbers: dict[tuple[str, int], int] = {}
    return join(
        [
            np.full(row.segment.actions, numbers.setdefault((row.segment.stream, row.segment.position), len(numbers)))
            for row in rows
        ],
        np.int64,
    )


def _behavior_logprobs(rows: Sequence[TrainingRow]) -> Float32:
    """The engine's logprobs of the action tokens, float32 [A]."""
    return join([row.segment.behavior_logprobs[row.segment.action_mask] for row in rows], np.float32)
