"""The optimizer steps of a call: their learning rate, when an update stops early, and the metrics they report."""

import math
from collections.abc import Callable, Sequence

from agile_ray.config import PPO, Imitation
from learner.messages import Sums, add
from learner.plan import MiniBatch

WARM_UP = 1 / 20
"""Share of the imitation steps in which the learning rate rises."""
FLOOR = 0.1
"""Final learning rate as a share of the peak."""


def imitation_rate(config: Imitation, *, step: int, steps: int) -> float:
    """Learning rate of step `step` of `steps`, from 0: linear warm-up, then cosine decay to a tenth of the peak."""
    rising = max(1, round(steps * WARM_UP))
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    passed = (step - rising) / max(1, steps - 1 - rising)
    return config.learning_rate * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * passed)) / 2)


def ppo_rate(config: PPO, progress: float) -> float:
    """Learning rate after this share of the iterations: linear decay to a tenth of the initial rate."""
    return config.learning_rate * (1 - (1 - FLOOR) * min(1.0, progress))


def take_steps(
    minibatches: Sequence[MiniBatch], step: Callable[[MiniBatch], Sums], *, early_stop_kl: float | None
) -> list[Sums]:
    """Take one step on each minibatch until the policy has moved further than `early_stop_kl`.

    Each step measures KL(old || policy) on its own minibatch before it moves the weights, so the first measures 0. A
    step that measures more than the limit leaves the weights unchanged and is the last of the update.

    Args:
        step: takes the step and returns the sums over all ranks.
        early_stop_kl: nats per action token; None takes every step.

    Returns:
        one entry per step, including the one that stopped the update.
    """
    taken: list[Sums] = []
    for minibatch in minibatches:
        taken.append(step(minibatch))
        if stops_early(taken[-1], early_stop_kl):
            break
    return taken


def stops_early(sums: Sums, early_stop_kl: float | None) -> bool:
    """Whether a step that measured these sums, over all ranks, must leave the weights unchanged."""
    return early_stop_kl is not None and mean_update_kl(sums) > early_stop_kl


def mean_update_kl(sums: Sums) -> float:
    """Estimate of KL(policy before the update || policy) in nats per action token."""
    return sums.update_kl / max(1, sums.actions)


def imitation_metrics(sums: Sums) -> dict[str, float]:
    """Metrics of an SFT step: means over action tokens, and the gradient's norm."""
    actions = max(1, sums.actions)
    return {
        "loss": sums.loss,
        "policy_loss": sums.policy / actions,
        "value_loss": sums.value / actions,
        "write_loss": sums.write / actions,
        "gradient_norm": sums.gradient_norm,
    }


def ppo_metrics(taken: Sequence[Sums], *, planned: int, early_stop_kl: float | None) -> dict[str, float]:
    """Metrics of a PPO update.

    Losses, KL and shares are means over the action tokens of all steps taken; `loss` and `gradient_norm` are means over
    the steps; `entropy_nats` is a mean over function tokens; `update_kl_nats` is that of the last step.

    Args:
        taken: the result of `take_steps`.
        planned: number of steps without an early stop.
        early_stop_kl: the limit that `take_steps` was given.
    """
    applied = len(taken) - stops_early(taken[-1], early_stop_kl)
    sums = add(taken, gradient_norm=0.0)
    actions = max(1, sums.actions)
    return {
        "loss": sums.loss / len(taken),
        "policy_loss": sums.policy / actions,
        "value_loss": sums.value / actions,
        "write_loss": sums.write / actions,
        "kl_nats": sums.kl / actions,
        "update_kl_nats": mean_update_kl(taken[-1]),
        "stopped_share": 1.0 - applied / planned,
        "entropy_nats": sums.entropy / max(1, sums.functions),
        "clip_share": sums.clipped / actions,
        "ratio_deviation": sums.deviation / actions,
        "gradient_norm": sum(step.gradient_norm for step in taken) / len(taken),
    }
