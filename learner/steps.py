"""The optimizer steps of one call: when the rest of an update is skipped, and what the steps say together."""

from collections.abc import Callable, Sequence

from learner.plan import MiniBatch
from learner.reports import Sums, add


def take(batches: Sequence[MiniBatch], step: Callable[[MiniBatch], Sums], *, stop_kl: float | None) -> list[Sums]:
    """Take one step on each minibatch, until one finds the policy further from where it began than `stop_kl`.

    A step measures KL(old || now) on its own minibatch before it moves the weights, so the first finds none. The one
    that finds too much moves nothing, and is the last: beyond the bound one more step on the same sessions may break
    what the policy does everywhere, since nothing else is sampled there.

    Args:
        step: takes the step, and tells what all ranks measured.
        stop_kl: nats per action token; None takes every step.
    """
    taken: list[Sums] = []
    for batch in batches:
        taken.append(step(batch))
        if too_far(taken[-1], stop_kl):
            break
    return taken


def update_kl(sums: Sums) -> float:
    """Estimate of KL(old || now) in nats per action token."""
    return sums.update_kl / max(1, sums.actions)


def too_far(sums: Sums, stop_kl: float | None) -> bool:
    """Whether a step that measured this, over all ranks, must not move the weights."""
    return stop_kl is not None and update_kl(sums) > stop_kl


def imitation_metrics(sums: Sums) -> dict[str, float]:
    """What an SFT step reports: per action token, but for the gradient's norm."""
    actions = max(1, sums.actions)
    return {
        "loss": sums.loss,
        "policy_loss": sums.policy / actions,
        "value_loss": sums.value / actions,
        "write_loss": sums.write / actions,
        "gradient_norm": sums.gradient_norm,
    }


def ppo_metrics(taken: Sequence[Sums], *, planned: int, stop_kl: float | None) -> dict[str, float]:
    """What an update reports: losses, KL and shares per action token of the steps that were taken.

    The mean over steps of the whole loss and of the gradient's norm; entropy per function token; the last step's
    update KL.

    Args:
        planned: steps that it would have taken without a stop.
        stop_kl: as it was taken with.
    """
    moved = len(taken) - too_far(taken[-1], stop_kl)
    sums = add(taken, gradient_norm=0.0)
    actions = max(1, sums.actions)
    return {
        "loss": sums.loss / len(taken),
        "policy_loss": sums.policy / actions,
        "value_loss": sums.value / actions,
        "write_loss": sums.write / actions,
        "kl_nats": sums.kl / actions,
        "update_kl_nats": update_kl(taken[-1]),
        "stopped_share": 1.0 - moved / planned,
        "entropy_nats": sums.entropy / max(1, sums.functions),
        "clip_share": sums.clipped / actions,
        "ratio_deviation": sums.deviation / actions,
        "gradient_norm": sum(step.gradient_norm for step in taken) / len(taken),
    }
