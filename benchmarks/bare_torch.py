"""Learning and generating with PyTorch and transformers alone: what learner and engine are measured against.

The step is the least that a trainer can do: no critic, no reference policy, no float32 copy of bfloat16 weights. It
computes logits at action tokens only, as the learner does. Nothing here loads this project's packages.

Dimensions: B = rows, T = tokens, A = action tokens.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

MAX_GRAD_NORM = 1.0


class Batch(Protocol):
    """The tensors of one forward pass, such as a `learner.micro_batch.MicroBatch`."""

    @property
    def token_ids(self) -> Tensor:
        """int64 [B, T], padded on the right."""
        ...

    @property
    def logit_positions(self) -> Tensor:
        """int64 [A], index in the flattened [B * T] of the token before each action token."""
        ...

    @property
    def actions(self) -> Tensor:
        """int64 [A], ids of the action tokens."""
        ...


def load(folder: Path, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Read a model's folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True)
    return model.to(device).train()


class BareLearner:
    """A model with AdamW."""

    def __init__(self, model: PreTrainedModel, *, matmul_dtype: torch.dtype, learning_rate: float) -> None:
        """`matmul_dtype`: bfloat16 computes the matrix products of float32 weights in bfloat16 (autocast)."""
        self._model = model
        self._autocast = matmul_dtype == torch.bfloat16 and model.dtype != torch.bfloat16
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)

    def step(self, batches: Sequence[Batch]) -> float:
        """Take one step on the mean cross-entropy of all action tokens; returns it, in nats."""
        actions = sum(len(batch.actions) for batch in batches)
        total = 0.0
        for batch in batches:
            loss = functional.cross_entropy(self._logits(batch).float(), batch.actions, reduction="sum") / actions
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), MAX_GRAD_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total

    def _logits(self, batch: Batch) -> Tensor:
        device = batch.token_ids.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._autocast):
            hidden_BTH = self._model.base_model(input_ids=batch.token_ids, use_cache=False).last_hidden_state
            head = self._model.get_output_embeddings()
            assert head is not None, "a causal language model has an output layer"
            return head(hidden_BTH.flatten(0, 1)[batch.logit_positions])


@torch.inference_mode()
def generate(model: PreTrainedModel, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """Answer one prompt after the other, as AGILE's released code does, each from scratch; returns the seconds taken.

    Args:
        lengths: tokens to write after each prompt.
    """
    begin = time.perf_counter()
    for prompt, length in zip(prompts, lengths, strict=True):
        ids = torch.tensor([list(prompt)], device=model.device)
        model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=length, max_new_tokens=length)
    return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
