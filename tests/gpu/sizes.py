"""The models and batches of the GPU check, the same for every case, and what one case reports."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ACTION_SHARE = 0.25
"""Share of a row's tokens that count as written by the policy, at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model from scratch, and one optimizer step."""

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    rows: int  # of one step
    tokens: int  # of one row
    micro_batch_tokens: int
    steps: int  # that are timed, after one that is not

    @property
    def actions(self) -> int:
        """Action tokens of one row."""
        return int(self.tokens * ACTION_SHARE)

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.rows * self.tokens

    def ids(self) -> NDArray[np.int64]:
        """Token ids of one step, int64 [rows, tokens]."""
        return np.random.default_rng(0).integers(16, self.vocabulary, (self.rows, self.tokens))


SIZES = {
    "cpu": Size(hidden=64, layers=2, heads=2, vocabulary=512, rows=4, tokens=32, micro_batch_tokens=64, steps=2),
    "cuda": Size(
        hidden=1024, layers=24, heads=16, vocabulary=32000, rows=32, tokens=1024, micro_batch_tokens=8192, steps=5
    ),
}
"""By device. On a GPU, 435 million parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one process measures."""

    stage: int | None = None  # of ZeRO; None: bare PyTorch
    again: bool = False  # gradient checkpointing
    lora_rank: int | None = None


CASES = {
    "bare": Case(),
    "zero1": Case(stage=1),
    "zero2": Case(stage=2),
    "zero3": Case(stage=3),
    "checkpointing": Case(stage=2, again=True),
    "lora": Case(stage=2, lora_rank=16),
    "lora_checkpointing": Case(stage=2, again=True, lora_rank=16),
}
"""Cases of the learner. `engine` is the only other one."""
ENGINE = "engine"
