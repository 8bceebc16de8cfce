"""From logits to the logprobs of the tokens that they predict.

The model computes logits only where an action token is predicted, so logits_AV[k] predicts actions_A[k]. `MicroBatch`
aligns the two; no later code shifts by one token.

Dimensions: A = action tokens, V = vocabulary.
"""

import torch
from torch import Tensor


def token_logprobs(logits_AV: Tensor, actions_A: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each action token in nats, float32 [A], under softmax(logits / temperature)."""
    scaled_AV = logits_AV.float() / temperature
    chosen_A = scaled_AV.gather(-1, actions_A.unsqueeze(-1)).squeeze(-1)
    return chosen_A - scaled_AV.logsumexp(dim=-1)


def entropies(logits_AV: Tensor, *, temperature: float) -> Tensor:
    """Entropy of the next-token distribution in nats, float32 [A]."""
    logprobs_AV = torch.log_softmax(logits_AV.float() / temperature, dim=-1)
    return -(logprobs_AV.exp() * logprobs_AV).sum(dim=-1)
