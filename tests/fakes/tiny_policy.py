"""A policy with random weights on a two-layer Llama of 11 tokens, segments for it, and an engine of one rank."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from agile_ray.types import Segment
from learner.micro_batch import MicroBatch
from learner.model import PolicyWithValue, Predictions, Weight, plain_weights

if TYPE_CHECKING:
    from learner.lora import Adapter

CPU = torch.device("cpu")
SIZES = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}


def tiny(**settings: object) -> LlamaForCausalLM:
    """A two-layer Llama with random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=2, **settings))


def policy(language_model: PreTrainedModel, adapter: "Adapter | None" = None) -> PolicyWithValue:
    """Add heads with random weights, so that every head affects the result."""
    model = PolicyWithValue(language_model, adapter)
    for head in (model.auxiliary_head, model.critic_head, model.write_head):
        torch.nn.init.normal_(head.weight)
    return model


class WholeEngine:
    """The part of `DeepSpeedEngine` that reads weights, for one rank that shards nothing."""

    rank = 0
    device = CPU

    def __init__(self, model: PolicyWithValue, adapter: "Adapter | None" = None) -> None:
        self._model = model
        self.language_model = model.language_model
        self.adapter = adapter

    def forward(self, batch: MicroBatch, matmul_dtype: torch.dtype = torch.float32) -> Predictions:
        return self._model(batch.token_ids, batch.logit_positions, matmul_dtype)

    def weights(self, *, tied_twice: bool) -> dict[str, Weight]:
        weights = plain_weights(self.language_model, tied_twice=tied_twice)
        return weights if self.adapter is None else self.adapter.merge(weights)

    @contextmanager
    def gathered(self, _: Iterable[torch.nn.Parameter]) -> Iterator[None]:
        yield


def segment(ids: list[int], actions: list[int]) -> Segment:
    """A segment whose action tokens are at the indices `actions`."""
    mask = np.isin(np.arange(len(ids)), actions)
    return Segment(
        stream="s",
        position=0,
        index=0,
        token_ids=np.array(ids, np.int32),
        action_mask=mask,
        turn_ids=np.where(mask, 0, -1).astype(np.int32),
        behavior_logprobs=np.zeros(len(ids), np.float32),
        versions=np.where(mask, 0, -1).astype(np.int32),
        rewards=np.zeros(len(ids), np.float32),
        ask_probabilities=np.full(len(ids), np.nan, np.float32),
        last=True,
    )


SEGMENTS = [segment([1, 5, 2, 7, 3, 4], [1, 4, 5]), segment([1, 6, 2], [2]), segment([1, 9, 8, 2], [1, 3])]
LOGIT_POSITIONS = [[0, 3, 4], [1], [0, 2]]
