"""The objectives of imitation and PPO, on a tiny policy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from agile_ray.config import PPO, Imitation
from agile_ray.types import Float32
from learner.messages import ImitationStep, PPOStep, Sums, add
from learner.micro_batch import MicroBatch, make_micro_batch
from learner.model import PolicyWithValue, Predictions
from learner.objectives import imitation_loss, ppo_loss
from learner.ragged import lay_out
from learner.targets import DemonstrationTargets, Targets
from tests.fakes.tiny_policy import CPU, SEGMENTS, policy, tiny

Objective = Callable[[Predictions, MicroBatch], tuple[torch.Tensor, Sums]]

RAGGED = lay_out(SEGMENTS)
ACTIONS = len(RAGGED.positions)


def drawn(seed: int) -> Float32:
    return np.random.default_rng(seed).normal(size=ACTIONS).astype(np.float32)


def imitation(predictions: Predictions, batch: MicroBatch) -> tuple[torch.Tensor, Sums]:
    targets = DemonstrationTargets(returns=drawn(0), wrote=(drawn(1) > 0).astype(np.float32))
    step = ImitationStep(actions=ACTIONS, learning_rate=1.0, critic_learning_rate=1.0, imitation=Imitation())
    return imitation_loss(predictions, batch, targets, step)


def ppo(predictions: Predictions, batch: MicroBatch) -> tuple[torch.Tensor, Sums]:
    targets = Targets(
        old_logprobs=drawn(0) - 3,
        importance_weights=np.abs(drawn(1)),
        reference_logprobs=drawn(2) - 3,
        advantages=drawn(3),
        own_values=drawn(4),
        own_returns=drawn(5),
        wrote=(drawn(6) > 0).astype(np.float32),
    )
    step = PPOStep(actions=ACTIONS, learning_rate=1.0, kl_coefficient=0.1, ppo=PPO(entropy_coefficient=0.1))
    function_ids = torch.tensor([2, 4, 5])
    return ppo_loss(predictions, batch, targets, step, function_ids=function_ids, temperature=0.8)


def run(objective: Objective, splits: list[list[int]]) -> tuple[PolicyWithValue, Sums]:
    model = policy(tiny())
    sums = []
    for rows in splits:
        batch = make_micro_batch(RAGGED, np.array(rows, np.int64), CPU)
        loss, measured = objective(model(batch.token_ids, batch.logit_positions), batch)
        loss.backward()
        assert measured.loss == loss.item()
        sums.append(measured)
    return model, add(sums, gradient_norm=0.0)


@pytest.mark.parametrize("objective", [imitation, ppo])
@pytest.mark.parametrize("splits", [[[0], [1, 2]], [[2], [], [1], [0]]])
def test_gradients_and_sums_do_not_depend_on_how_rows_are_split_into_micro_batches(objective, splits):
    whole, expected = run(objective, [[0, 1, 2]])
    split, found = run(objective, splits)
    for field in Sums.__slots__:
        assert getattr(found, field) == pytest.approx(getattr(expected, field), rel=1e-4, abs=1e-5), field
    assert found.actions == ACTIONS
    for (name, one), other in zip(whole.named_parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)
