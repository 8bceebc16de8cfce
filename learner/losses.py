"""Losses as pure functions that return sums over action tokens.

One optimizer step minimizes the following, where N is the number of action tokens of the step over all ranks and
micro-batches, so that the gradient depends on neither (`objectives.py` adds the terms up):

    imitation   [cross_entropy + v auxiliary value_loss + w (value_loss + write_loss)] / N
    PPO         [clipped_policy_loss + v auxiliary value_loss + w (clipped_value_loss + write_loss)
                  + b k3 + u binary_kl - h function_entropy] / N

v = IMITATION_VALUE_WEIGHT or ppo.value_coefficient, w = DETACHED_HEAD_WEIGHT, b = ppo.kl_coefficient as adapted by
`KLController`, h = ppo.entropy_coefficient, u = ppo.update_kl_coefficient. Logprobs, KLs and entropies are in nats,
values and returns in reward, advantages whitened. A = action tokens of one micro-batch; all float32 [A] unless said
otherwise. The model computes logits only where an action token is predicted, so logits_AV[k] predicts actions_A[k]; V =
vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

DETACHED_HEAD_WEIGHT = 0.1
"""Weight of the losses of heads that read the hidden state without gradient. Adam's steps do not depend on it; it is
low so that these heads take little of the gradient norm that clipping allows."""
IMITATION_VALUE_WEIGHT = 3.0
"""Weight of the auxiliary value loss in imitation, which teaches the trunk how well each question can be guessed
(docs/credit.md)."""
VALUE_CLIP = 0.2
"""Half-width of the trust region on the critic's values, in reward."""
MAX_LOG_RATIO = math.log(10.0)
"""Log-ratio of reference to policy from which on `k3` is linear."""
LOGPROB_EPSILON = 1e-6
"""Smallest distance of a probability to 1 that float32 logprobs resolve well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """The surrogate objective, and how far the policy has moved."""

    loss: Tensor  # sum, with gradient
    clipped: Tensor  # tokens whose gradient the clip cut off
    deviation: Tensor  # sum of |ratio - 1|
    update_kl: Tensor  # sum of an estimate of KL(old || policy), nats


def clipped_policy_loss(
    logprobs_A: Tensor, *, old_logprobs_A: Tensor, importance_weights_A: Tensor, advantages_A: Tensor, clip: float
) -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al., 2017, eq. 7), negated.

        -sum of w min(ratio A, clamp(ratio, 1 - clip, 1 + clip) A)     ratio = exp(logprob - old logprob)

    w = `importance_weights_A`, A = `advantages_A`, whitened.

    The trust region is centred on the learner's own logprobs before the update. The engine sampled from a slightly
    different distribution (other kernels, other rounding), which the truncated importance weights correct.

    `update_kl` is estimated by (ratio - 1) - log ratio: never negative, and on tokens that the old policy sampled its
    mean is that of -log ratio, as the mean of ratio - 1 is 0 (k3 of Schulman, "Approximating KL Divergence", 2020).
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
    """Sum of KL(policy || old) over two events, this token or any other, in nats.

        p log(p / o) + (1 - p) log((1 - p) / (1 - o))        derivative in p: logit p - logit o

    p and o are the token's probabilities now and before the update. The estimate needs no other logits, and is a lower
    bound of the KL over the whole vocabulary. Qi et al. (2026, arXiv 2602.04879) bound the KL of the same two events in
    the other direction, where PPO bounds p / o.

    With weight w, an advantage A moves a token until logit p = logit o + A / (w o): it limits the change of the
    log-odds, as mirror descent does (Tomar et al., 2020), not that of the probability. At A / w = -0.31, a probability
    of 0.5 falls to 0.35, and one of 0.999 to 0.9986. A clip of 0.3 stops pushing either below 0.7 of its old value, but
    does not keep it there.

    Probabilities are capped at 1 - LOGPROB_EPSILON.
    """
    ours_A, ours_other_A = _binary_logprobs(logprobs_A)
    old_A, old_other_A = _binary_logprobs(old_logprobs_A)
    return (ours_A.exp() * (ours_A - old_A) + ours_other_A.exp() * (ours_other_A - old_other_A)).sum()


def _binary_logprobs(logprobs_A: Tensor) -> tuple[Tensor, Tensor]:
    """Logprobs of the token, and of all other tokens together."""
    bounded_A = logprobs_A.clamp(max=-LOGPROB_EPSILON)
    return bounded_A, (-bounded_A.expm1()).log()


def clipped_value_loss(values_A: Tensor, *, old_values_A: Tensor, returns_A: Tensor) -> Tensor:
    """Sum of max((v - R)^2, (v_old + clamp(v - v_old, -c, c) - R)^2) / 2 with c = VALUE_CLIP, reward^2.

    The second term is the error of the new value after clipping it to the old one +- c, as in OpenAI Baselines (ppo2).
    """
    bounded_A = old_values_A + (values_A - old_values_A).clamp(-VALUE_CLIP, VALUE_CLIP)
    return 0.5 * torch.maximum((values_A - returns_A) ** 2, (bounded_A - returns_A) ** 2).sum()


def value_loss(values_A: Tensor, *, returns_A: Tensor) -> Tensor:
    """Sum of (v - R)^2 / 2, reward^2."""
    return 0.5 * ((values_A - returns_A) ** 2).sum()


def write_loss(logits_A: Tensor, *, wrote_A: Tensor) -> Tensor:
    """Sum of the cross-entropy of whether the token's session writes an entry to memory, in nats.

    All tokens of a session have the same label, so the predicted probability sharpens as the session proceeds.

    Args:
        logits_A: log-odds of writing.
        wrote_A: 1.0 where the session wrote, else 0.0.
    """
    return functional.binary_cross_entropy_with_logits(logits_A.float(), wrote_A, reduction="sum")


def k3(logprobs_A: Tensor, *, reference_logprobs_A: Tensor) -> Tensor:
    """Sum of exp(d) - 1 - d in nats, d = reference - policy logprob (k3 of Schulman, 2020): never negative, 0 if equal.

    Its value estimates KL(policy || reference) on tokens that the policy sampled. Its gradient, for fixed tokens, is
    that of KL(reference || policy): one token gives (1 - reference / policy) grad log policy, whose mean under the
    policy is sum of (policy - reference) grad log policy = -sum of reference grad log policy, since
    policy grad log policy = grad policy sums to 0. So the policy is drawn to cover everything that the reference does.

    From reference / policy = 10 on it continues along its tangent; otherwise the exponential would let one token that
    became e^12 times less likely outweigh all others of its update.
    """
    difference_A = reference_logprobs_A - logprobs_A
    bounded_A = difference_A.clamp(max=MAX_LOG_RATIO)
    return (bounded_A.exp() * (1.0 + difference_A - bounded_A) - 1.0 - difference_A).sum()


def function_entropy(logits_AV: Tensor, functions_A: Tensor, *, temperature: float) -> Tensor:
    """Sum of the policy's entropies where it sampled a function token, in nats.

    Exploration concerns the choice of functions, such as when to ask; in written text, entropy would only disturb
    copying.

    Args:
        logits_AV: [A, V], V = vocabulary.
        functions_A: bool [A], True where the action token is a function token.
        temperature: of sampling; logits are divided by it.
    """
    return entropies(logits_AV[functions_A], temperature=temperature).sum()


def cross_entropy(logprobs_A: Tensor) -> Tensor:
    """Sum of -log p of the action tokens, in nats."""
    return -logprobs_A.sum()


def token_logprobs(logits_AV: Tensor, actions_A: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each action token in nats, float32 [A], under softmax(logits / temperature)."""
    scaled_AV = logits_AV.float() / temperature
    chosen_A = scaled_AV.gather(-1, actions_A.unsqueeze(-1)).squeeze(-1)
    return chosen_A - scaled_AV.logsumexp(dim=-1)


def entropies(logits_AV: Tensor, *, temperature: float) -> Tensor:
    """Entropy of the next-token distribution in nats, float32 [A]."""
    logprobs_AV = torch.log_softmax(logits_AV.float() / temperature, dim=-1)
    return -(logprobs_AV.exp() * logprobs_AV).sum(dim=-1)
