"""Losses as pure functions that return sums over action tokens.

What one optimizer step minimizes, with N the action tokens of the whole step, over all ranks and micro-batches, so that
the gradient depends on neither:

    imitation   [cross_entropy + v auxiliary value_loss + w (value_loss + write_loss)] / N
    PPO         [clipped_policy_loss + v auxiliary value_loss + w (clipped_value_loss + write_loss)
                  + b k3 + u binary_kl - h function_entropy] / N

v = value_coefficient (of imitation or ppo), w = DETACHED_HEAD_WEIGHT, b = ppo.kl_coefficient as adapted by
`KLController`, h = ppo.entropy_coefficient, u = ppo.update_kl_coefficient. Logprobs, KLs and entropies are in nats,
values and returns in reward, advantages whitened. A = action tokens of one micro-batch; all float32 [A] unless said
otherwise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from learner.logprobs import entropies

DETACHED_HEAD_WEIGHT = 0.1
"""Weight of heads that only read the trunk. Adam takes no notice of it; it is low to leave the gradient's norm, which
is bounded, to the policy."""
VALUE_CLIP = 0.2
"""Half-width of the trust region on the critic's values, in reward."""
MAX_LOG_RATIO = math.log(10.0)
"""Of reference to policy; from there on `k3` is straight."""
LOGPROB_EPSILON = 1e-6
"""How far a chance may come to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """The surrogate, and how far the policy has moved."""

    loss: Tensor  # sum, with gradient
    clipped: Tensor  # tokens whose gradient the clip cut off
    deviation: Tensor  # sum of |ratio - 1|
    update_kl: Tensor  # sum of an estimate of KL(old || policy), nats


def clipped_policy_loss(
    logprobs_A: Tensor, *, old_logprobs_A: Tensor, importance_weights_A: Tensor, advantages_A: Tensor, clip: float
) -> PolicyLoss:
    """PPO's pessimistic surrogate (Schulman et al., 2017, eq. 7), negated.

        -sum of w min(ratio A, clamp(ratio, 1 - clip, 1 + clip) A)     ratio = exp(logprob - old logprob)

    w = `importance_weights_A`, A = `advantages_A`, whitened.

    The trust region stands around the learner's own logprobs before the update. What the engine sampled from
    is a little different (other kernels, other rounding): each token is weighted by `importance_weights_A`, truncated
    importance weights.

    The divergence is estimated by (ratio - 1) - log ratio with ratio = policy / old: never negative, and on tokens that
    the old policy sampled its mean is that of -log ratio, as the mean of ratio - 1 is 0 (Schulman, "Approximating KL
    Divergence", 2020, k3).
    """
    log_ratio_A = logprobs_A - old_logprobs_A
    ratio_A = log_ratio_A.exp()
    bounded_A = ratio_A.clamp(1.0 - clip, 1.0 + clip)
    gain_A = torch.minimum(ratio_A * advantages_A, bounded_A * advantages_A)
    with torch.no_grad():
        clipped_A = bounded_A * advantages_A < ratio_A * advantages_A
        deviation_A = (ratio_A - 1.0).abs()
        update_kl_A = log_ratio_A.expm1() - log_ratio_A
    return PolicyLoss(
        loss=-(importance_weights_A * gain_A).sum(),
        clipped=clipped_A.float().sum(),
        deviation=deviation_A.sum(),
        update_kl=update_kl_A.sum(),
    )


def binary_kl(logprobs_A: Tensor, *, old_logprobs_A: Tensor) -> Tensor:
    """Sum of KL(policy || old) between two events, this token and any other, in nats.

        p log(p / o) + (1 - p) log((1 - p) / (1 - o))        slope in p: logit p - logit o

    It needs no more than the sampled token's chances, and is the least that the KL over the whole vocabulary can be.
    Qi et al. (2026, arXiv 2602.04879) bound the KL of the same two events, the other way round, where PPO bounds p / o.
    Against an advantage A, at weight w, a token moves until logit p = logit o + A / (w o): the log-odds give way, as in
    mirror descent (Tomar et al., 2020), not the chance. At A / w = -0.31 one of 0.5 falls to 0.35, and one of 0.999 to
    0.9986. A clip of 0.3 pushes neither below 0.7 of what it was, but does not hold it there.

    Chances beyond 1 - LOGPROB_EPSILON are taken for that: float32 logprobs know no better.
    """
    ours_A, ours_other_A = _either(logprobs_A)
    old_A, old_other_A = _either(old_logprobs_A)
    return (ours_A.exp() * (ours_A - old_A) + ours_other_A.exp() * (ours_other_A - old_other_A)).sum()


def _either(logprobs_A: Tensor) -> tuple[Tensor, Tensor]:
    """Logprobs of the token and of any other."""
    bounded_A = logprobs_A.clamp(max=-LOGPROB_EPSILON)
    return bounded_A, (-bounded_A.expm1()).log()


def clipped_value_loss(values_A: Tensor, *, old_values_A: Tensor, returns_A: Tensor, clip: float) -> Tensor:
    """Sum of max((v - R)^2, (v_old + clamp(v - v_old, -clip, clip) - R)^2) / 2, reward^2.

    The second is the error of the value kept near its old self, as in OpenAI Baselines (ppo2).

    Args:
        clip: how far the value may move, in reward.
    """
    bounded_A = old_values_A + (values_A - old_values_A).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_A - returns_A) ** 2, (bounded_A - returns_A) ** 2).sum()


def value_loss(values_A: Tensor, *, returns_A: Tensor) -> Tensor:
    """Sum of (v - R)^2 / 2, reward^2."""
    return 0.5 * ((values_A - returns_A) ** 2).sum()


def write_loss(logits_A: Tensor, *, wrote_A: Tensor) -> Tensor:
    """Cross-entropy of whether the token's session writes an entry to memory, in nats.

    One label for all tokens of a session: the chance that is learned is the same event's, the more certain the later.

    Args:
        logits_A: log-odds of writing.
        wrote_A: 1.0 where the session wrote, else 0.0.
    """
    return functional.binary_cross_entropy_with_logits(logits_A.float(), wrote_A, reduction="sum")


def k3(logprobs_A: Tensor, *, reference_logprobs_A: Tensor) -> Tensor:
    """Sum of exp(d) - 1 - d in nats, d = reference - policy logprob (k3 of Schulman, 2020): never negative, 0 if equal.

    Its value estimates KL(policy || reference) on tokens that the policy sampled. Its gradient, with the tokens
    held fixed, is that of KL(reference || policy): one token gives (1 - reference / policy) grad log policy,
    whose mean under the policy is sum of (policy - reference) grad log policy = -sum of reference grad log policy,
    since policy grad log policy = grad policy sums to 0. So it pulls the policy over all that the reference does.

    Beyond reference / policy = 10 it goes on along its tangent: the exponential would let a single token that became
    e^12 times less likely outweigh all others of its update.
    """
    difference_A = reference_logprobs_A - logprobs_A
    bounded_A = difference_A.clamp(max=MAX_LOG_RATIO)
    return (bounded_A.exp() * (1.0 + difference_A - bounded_A) - 1.0 - difference_A).sum()


def function_entropy(logits_AV: Tensor, functions_A: Tensor, *, temperature: float) -> Tensor:
    """Sum of the policy's entropies where it sampled a function token, in nats.

    Where words are written, entropy would only blur copying; what is to be explored is when to ask.

    Args:
        logits_AV: [A, V], V = vocabulary.
        functions_A: bool [A], True where the action token is a function token.
        temperature: of sampling; logits are divided by it.
    """
    return entropies(logits_AV[functions_A], temperature=temperature).sum()


def cross_entropy(logprobs_A: Tensor) -> Tensor:
    """Sum of -log p of the action tokens, nats."""
    return -logprobs_A.sum()
