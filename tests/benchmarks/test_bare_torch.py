"""Bare PyTorch computes what it says: the mean cross-entropy of action tokens, whatever the micro-batches."""

import numpy as np
import torch
from torch.nn import functional

from benchmarks.bare_torch import BareLearner, generate
from learner.micro_batch import make_micro_batch
from learner.ragged import lay_out
from tests.fakes.tiny_policy import CPU, SEGMENTS, tiny


def batches(*groups: list[int]):
    ragged = lay_out(SEGMENTS)
    return [make_micro_batch(ragged, np.array(rows), CPU) for rows in groups]


def slow_loss(model) -> float:
    """One row at a time, over whole logits."""
    losses = []
    for segment in SEGMENTS:
        ids = torch.from_numpy(segment.token_ids.astype(np.int64))
        logits = model(ids[None]).logits[0]
        losses += [
            functional.cross_entropy(logits[at - 1], ids[at]).item() for at in np.flatnonzero(segment.action_mask)
        ]
    return float(np.mean(losses))


def test_a_step_minimizes_the_mean_cross_entropy_of_the_action_tokens() -> None:
    model = tiny()
    expected = slow_loss(model)
    learner = BareLearner(model, matmul_dtype=torch.float32, learning_rate=1e-2)
    assert abs(learner.step(batches([0, 1, 2])) - expected) < 1e-5
    assert slow_loss(model) < expected


def test_micro_batches_do_not_change_the_step() -> None:
    after = []
    for groups in ([[0, 1, 2]], [[2], [0, 1]]):
        model = tiny()
        BareLearner(model, matmul_dtype=torch.float32, learning_rate=1e-2).step(batches(*groups))
        after.append(slow_loss(model))
    assert abs(after[0] - after[1]) < 1e-5


def test_every_prompt_gets_as_many_tokens_as_its_turn_has() -> None:
    model, lengths = tiny(), []
    model.generation_config.eos_token_id = 2
    original = model.generate
    model.generate = lambda ids, **given: (
        lengths.append(len(found := original(ids, **given)[0]) - ids.shape[1]) or found
    )
    assert generate(model, [[1, 2, 3], [4]], [3, 5]) > 0
    assert lengths == [3, 5]
