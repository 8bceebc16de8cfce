"""The two objectives, imitation and PPO, of one micro-batch: one rank's share of what an optimizer step minimizes.

`losses.py` holds the terms and the formula of their sum. A = action tokens of the micro-batch.
"""

import torch
from torch import Tensor

from learner import losses
from learner.losses import token_logprobs
from learner.messages import ImitationStep, PPOStep, Sums
from learner.micro_batch import MicroBatch
from learner.model import Predictions
from learner.targets import DemonstrationTargets, Targets


def imitation_loss(
    predictions: Predictions, batch: MicroBatch, targets: DemonstrationTargets, step: ImitationStep
) -> tuple[Tensor, Sums]:
    """The SFT objective, with gradient, and its terms.

    Args:
        targets: of all action tokens of the step.
    """
    logprobs_A = token_logprobs(predictions.logits, batch.actions, temperature=1.0)
    policy = losses.cross_entropy(logprobs_A)
    returns_A = batch.select(targets.returns)
    value = losses.value_loss(predictions.own_values, returns_A=returns_A)
    auxiliary = losses.value_loss(predictions.auxiliary_values, returns_A=returns_A)
    write = losses.write_loss(predictions.write_logits, wrote_A=batch.select(targets.wrote))
    total = (
        policy + losses.IMITATION_VALUE_WEIGHT * auxiliary + losses.DETACHED_HEAD_WEIGHT * (value + write)
    ) / step.actions
    return total, _sums(len(batch.indices), loss=total, policy=policy, value=value, write=write)


def ppo_loss(
    predictions: Predictions,
    batch: MicroBatch,
    targets: Targets,
    step: PPOStep,
    *,
    function_ids: Tensor,
    temperature: float,
) -> tuple[Tensor, Sums]:
    """The PPO objective, with gradient, and its terms.

    Args:
        targets: of all action tokens of the update.
        function_ids: int64, ids of the function tokens.
        temperature: of sampling; logits are divided by it.
    """
    ppo = step.ppo
    logprobs_A = token_logprobs(predictions.logits, batch.actions, temperature=temperature)
    old_logprobs_A = batch.select(targets.old_logprobs)
    returns_A = batch.select(targets.own_returns)
    functions_A = torch.isin(batch.actions, function_ids)
    with torch.set_grad_enabled(ppo.entropy_coefficient > 0):
        entropy = losses.function_entropy(predictions.logits, functions_A, temperature=temperature)
    policy = losses.clipped_policy_loss(
        logprobs_A,
        old_logprobs_A=old_logprobs_A,
        importance_weights_A=batch.select(targets.importance_weights),
        advantages_A=batch.select(targets.advantages),
        clip=ppo.clip,
    )
    value = losses.clipped_value_loss(
        predictions.own_values, old_values_A=batch.select(targets.own_values), returns_A=returns_A
    )
    auxiliary = losses.value_loss(predictions.auxiliary_values, returns_A=returns_A)
    write = losses.write_loss(predictions.write_logits, wrote_A=batch.select(targets.wrote))
    kl = losses.k3(logprobs_A, reference_logprobs_A=batch.select(targets.reference_logprobs))
    update_kl = losses.binary_kl(logprobs_A, old_logprobs_A=old_logprobs_A)
    total = (
        policy.loss
        + ppo.value_coefficient * auxiliary
        + losses.DETACHED_HEAD_WEIGHT * (value + write)
        + step.kl_coefficient * kl
        + ppo.update_kl_coefficient * update_kl
        - ppo.entropy_coefficient * entropy
    ) / step.actions
    sums = _sums(
        len(batch.indices),
        loss=total,
        functions=functions_A.float().sum(),
        policy=policy.loss,
        value=value,
        write=write,
        kl=kl,
        update_kl=policy.update_kl,
        entropy=entropy,
        clipped=policy.clipped,
        deviation=policy.deviation,
    )
    return total, sums


def _sums(actions: int, **tensors: Tensor) -> Sums:
    """Sums with these scalars, copied from the device in one transfer."""
    values = torch.stack(list(tensors.values())).detach().tolist()
    return Sums(actions=actions, **dict(zip(tensors, values, strict=True)))
