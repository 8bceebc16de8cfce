"""What the driver and the ranks send each other; it loads neither torch nor DeepSpeed.

    driver -> rank   RankSettings at the start, an ImitationStep or a PPOStep with every optimizer step
    rank -> driver   Sums of an optimizer step, RankScores of a scoring pass; of long calls what it Yielded

A = action tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np

from agile_ray.config import PPO, Imitation, Learner
from agile_ray.types import Int64, TokenScores
from learner.ragged import join_scores

if TYPE_CHECKING:
    from ray import ObjectRef

Result = TypeVar("Result")
Device = Literal["cpu", "gpu"]
Dtype = Literal["float32", "bfloat16"]

Attention = Literal["eager", "sdpa"]
"""transformers' names of the attention implementations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSettings:
    """What a rank needs to start; the same on every rank, and constant for its life."""

    folder: Path  # a Hugging Face folder with the initial weights and the tokenizer
    learner: Learner
    function_ids: tuple[int, ...]  # token ids of the functions, where the entropy bonus applies
    temperature: float  # of sampling; PPO divides logits by it wherever it compares logprobs
    publish_dtype: Dtype  # of the weights that the rollout engines serve
    matmul_dtype: Dtype  # of PPO's matrix products; imitation names its own
    attention: Attention
    deadline_s: float  # longest time that the ranks wait for each other


@dataclass(frozen=True, slots=True, kw_only=True)
class ImitationStep:
    """One SFT step on one minibatch."""

    actions: int  # action tokens of the minibatch over all ranks, at least 1: losses are divided by it
    learning_rate: float
    critic_learning_rate: float
    imitation: Imitation


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOStep:
    """One PPO step on one minibatch."""

    actions: int  # action tokens of the minibatch over all ranks, at least 1: losses are divided by it
    learning_rate: float  # as scheduled; `ppo` holds the initial one
    kl_coefficient: float  # as adapted; `ppo` holds the initial one
    ppo: PPO


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What one rank measured in one optimizer step: sums over its action tokens, except `loss` and `gradient_norm`.

    KL, entropy and write are in nats, value in reward^2, policy in nats (imitation) or in standard deviations of the
    advantages (PPO).
    """

    loss: float  # this rank's share of the objective, already divided by the step's action tokens
    actions: float = 0.0  # number of action tokens
    functions: float = 0.0  # number of function tokens among them
    policy: float = 0.0
    value: float = 0.0
    write: float = 0.0
    kl: float = 0.0  # estimate of KL(policy || reference)
    update_kl: float = 0.0  # estimate of KL(policy before the update || policy)
    entropy: float = 0.0  # at function tokens only
    clipped: float = 0.0  # number of tokens whose gradient PPO's clip cut off
    deviation: float = 0.0  # of |probability ratio - 1|
    gradient_norm: float = 0.0  # of the whole step, the same on every rank


def add(measured: Iterable[Sums], *, gradient_norm: float) -> Sums:
    """Add field by field; the result has the given gradient norm."""
    columns = zip(*(astuple(sums) for sums in measured), strict=True)
    totals = dict(zip(Sums.__slots__, map(sum, columns), strict=True))
    return Sums(**totals | {"gradient_norm": gradient_norm})


@dataclass(frozen=True, slots=True, kw_only=True)
class RankScores:
    """Scores of the action tokens that one rank computed."""

    indices: Int64  # [A], of these tokens among all action tokens of the call
    scores: TokenScores


def merge_scores(parts: Sequence[RankScores]) -> TokenScores:
    """Merge the scores of all ranks, in the order of the action tokens; each token must occur exactly once."""
    order = np.argsort(np.concatenate([part.indices for part in parts]))
    joined = join_scores([part.scores for part in parts])
    return TokenScores(**{name: getattr(joined, name)[order] for name in TokenScores.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Yielded(Generic[Result]):
    """What a rank yielded in one long call."""

    units: "Sequence[ObjectRef[Result | None]]"  # one for each unit of its work, in order
    result: Result
