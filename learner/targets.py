"""What the losses compare predictions with: advantages, returns and labels of every action token.

A = action tokens of all rows, in the order of the rows; the rows of one session are adjacent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from agile_ray.config import PPO
from agile_ray.credit.gae import explained_variance, gae, whiten
from agile_ray.types import Demonstration, Float32, Int32, Int64, TrainingRow
from learner.ragged import join, join_scores

MAX_IMPORTANCE_WEIGHT = 2.0
"""Cap of the importance weight, which corrects for the gap between the engine's and the learner's logprobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationTargets:
    """Targets of the heads during imitation; entry k belongs to the k-th action token of the demonstrations."""

    returns: Float32  # [A], reward, as in Demonstration: without credit, which is not known yet
    wrote: Float32  # [A], 1.0 where the session wrote an entry to memory, else 0.0


def make_demonstration_targets(demonstrations: Sequence[Demonstration]) -> DemonstrationTargets:
    """Concatenate the demonstrations' returns and labels."""
    return DemonstrationTargets(
        returns=join([demonstration.returns for demonstration in demonstrations], np.float32),
        wrote=_wrote(demonstrations),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What stays constant during the epochs of an update; entry k belongs to the k-th action token of the rows."""

    old_logprobs: Float32  # [A], nats, the learner before the first epoch
    importance_weights: Float32  # [A], min(old / behavior, 2): truncated importance sampling (Ionides, 2008)
    reference_logprobs: Float32  # [A], nats, the frozen reference policy
    advantages: Float32  # [A], of own rewards and credit, whitened over the update
    own_values: Float32  # [A], reward, the critic of own rewards before the first epoch
    own_returns: Float32  # [A], reward, the critic's target
    wrote: Float32  # [A], 1.0 where the session wrote an entry to memory, else 0.0


def make_targets(rows: Sequence[TrainingRow], ppo: PPO) -> tuple[Targets, dict[str, float]]:
    """Estimate the advantages and returns of all action tokens, and compute their metrics.

        own         = gae(own rewards, own values)                               returns = values + own
        excess      = gae(credit - baseline on the deciding token, 0 elsewhere; values 0)
        advantages  = whiten(own + excess)                                       all [A], in reward until whitened

    Returns:
        the targets, and metrics by the names in `agile_ray/record/metrics.py`.

    Raises:
        ContractError: rows of one session are not adjacent or out of order.
    """
    scores = join_scores([row.scores for row in rows])
    estimate = partial(
        gae,
        session_ids_A=_session_numbers(rows),
        turn_ids_A=_turn_ids(rows),
        gae_lambda=ppo.gae_lambda,
    )
    own_A = estimate(_own_rewards(rows), scores.own_values)
    credit_A = estimate(_excess_credit(rows), np.zeros_like(scores.own_values))
    credit_baseline_A = _credit_baseline(rows)
    advantages_A = own_A + credit_A  # GAE is linear in rewards and values
    own_returns_A = scores.own_values + own_A
    behavior_A = _behavior_logprobs(rows)
    importance_weights_A = np.exp(np.minimum(scores.logprobs - behavior_A, np.log(np.float32(MAX_IMPORTANCE_WEIGHT))))
    metrics = {
        "advantage_mean": float(advantages_A.mean(dtype=np.float64)),
        "advantage_std": float(advantages_A.std(dtype=np.float64)),
        "explained_variance": explained_variance(
            scores.own_values + credit_baseline_A, own_returns_A + credit_baseline_A + credit_A
        ),
        "own_explained_variance": explained_variance(scores.own_values, own_returns_A),
        "behavior_gap_nats": float(np.abs(scores.logprobs - behavior_A).mean()),
        "effective_share": effective_share(importance_weights_A),
        "truncated_share": float((importance_weights_A >= MAX_IMPORTANCE_WEIGHT).mean()),
    }
    targets = Targets(
        old_logprobs=scores.logprobs,
        importance_weights=importance_weights_A,
        reference_logprobs=scores.reference_logprobs,
        advantages=whiten(advantages_A),
        own_values=scores.own_values,
        own_returns=own_returns_A,
        wrote=_wrote(rows),
    )
    return targets, metrics


def effective_share(weights_A: Float32) -> float:
    """Effective sample size of weighted tokens as a share of their number: (sum w)^2 / (n sum w^2) (Kish, 1965).

    1 if all weights are equal; 1/n if one token has all the weight.
    """
    wide_A = weights_A.astype(np.float64)
    return float(wide_A.sum() ** 2 / (len(wide_A) * (wide_A**2).sum()))


def _own_rewards(rows: Sequence[TrainingRow]) -> Float32:
    """Own rewards of the action tokens, float32 [A]."""
    return join([row.segment.rewards[row.segment.action_mask] for row in rows], np.float32)


def _excess_credit(rows: Sequence[TrainingRow]) -> Float32:
    """Credit minus its baseline on the action token that decided it, 0.0 on all others, float32 [A]."""
    return join(
        [_one_hot(row.credit - row.credit_baseline, row.decided_after - 1, row.segment.actions) for row in rows],
        np.float32,
    )


def _one_hot(value: float, index: int, length: int) -> Float32:
    """`value` at `index`, 0.0 elsewhere; a negative index leaves all at 0.0."""
    array = np.zeros(length, dtype=np.float32)
    if index >= 0:
        array[index] = value
    return array


def _credit_baseline(rows: Sequence[TrainingRow]) -> Float32:
    """The credit's baseline up to the token that decides it, 0.0 after, float32 [A]."""
    undecided = [(np.arange(row.segment.actions) < row.decided_after).astype(np.float32) for row in rows]
    return join([row.credit_baseline * mask for row, mask in zip(rows, undecided, strict=True)], np.float32)


def _wrote(rows: Sequence[Demonstration] | Sequence[TrainingRow]) -> Float32:
    """1.0 where the action token's session wrote to memory, else 0.0, float32 [A]."""
    return join([np.full(row.segment.actions, row.wrote, dtype=np.float32) for row in rows], np.float32)


def _session_numbers(rows: Sequence[TrainingRow]) -> Int64:
    """Number of the action token's session, from 0 in the order of the rows, int64 [A]."""
    numbers: dict[tuple[str, int], int] = {}
    return join(
        [
            np.full(row.segment.actions, numbers.setdefault((row.segment.stream, row.segment.position), len(numbers)))
            for row in rows
        ],
        np.int64,
    )


def _turn_ids(rows: Sequence[TrainingRow]) -> Int32:
    """Turn of its session that wrote the action token, int32 [A]."""
    return join([row.segment.turn_ids[row.segment.action_mask] for row in rows], np.int32)


def _behavior_logprobs(rows: Sequence[TrainingRow]) -> Float32:
    """The engine's logprobs of the action tokens, float32 [A]."""
    return join([row.segment.behavior_logprobs[row.segment.action_mask] for row in rows], np.float32)
