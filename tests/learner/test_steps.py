"""When an update stops early, the metrics of its steps, and the controller of the KL coefficient."""

import numpy as np
import pytest

from agile_ray.config import PPO
from agile_ray.record.metrics import check_metrics
from learner import kl_controller
from learner.kl_controller import KLController
from learner.messages import Sums
from learner.plan import MiniBatch
from learner.steps import imitation_metrics, ppo_metrics, stops_early, take_steps

MEASURED = [
    Sums(loss=1.0, actions=4, functions=1, policy=2, update_kl=0.0, kl=1, entropy=0.5, gradient_norm=3),
    Sums(loss=2.0, actions=6, functions=3, policy=2, update_kl=0.6, kl=2, entropy=1.5, gradient_norm=5),
    Sums(loss=9.0, actions=5, functions=5, policy=9, update_kl=0.1, kl=9, entropy=9.0, gradient_norm=9),
]


def minibatches(count: int) -> list[MiniBatch]:
    return [MiniBatch(by_rank=((np.array([k]),),), tokens=1, processed=1) for k in range(count)]


def measured(minibatch: MiniBatch) -> Sums:
    return MEASURED[int(minibatch.rows[0])]


@pytest.mark.parametrize(("early_stop_kl", "steps"), [(None, 3), (0.2, 3), (0.11, 3), (0.09, 2)])
def test_an_update_ends_with_the_step_that_measures_more_kl_than_the_limit(early_stop_kl, steps):
    taken = take_steps(minibatches(3), measured, early_stop_kl=early_stop_kl)
    assert taken == MEASURED[:steps]
    assert [stops_early(sums, early_stop_kl) for sums in taken] == [False] * (steps - 1) + [steps < 3]


def test_metrics_are_means_over_the_steps_that_were_taken():
    metrics = ppo_metrics(MEASURED[:2], planned=8, early_stop_kl=None)
    assert metrics["stopped_share"] == 0.75
    assert (
        ppo_metrics(MEASURED[:2], planned=8, early_stop_kl=0.09)["stopped_share"] == 0.875
    )  # the second changed no weight
    assert metrics["update_kl_nats"] == pytest.approx(0.1)
    assert metrics["policy_loss"] == pytest.approx(4 / 10)
    assert metrics["kl_nats"] == pytest.approx(3 / 10)
    assert metrics["entropy_nats"] == pytest.approx(2 / 4)
    assert metrics["loss"] == pytest.approx(1.5)
    assert metrics["gradient_norm"] == pytest.approx(4)
    check_metrics(metrics | imitation_metrics(MEASURED[0]))


def test_the_entropy_metric_is_zero_without_function_tokens():
    assert ppo_metrics([Sums(loss=0.0, actions=2)], planned=1, early_stop_kl=None)["entropy_nats"] == 0.0


@pytest.mark.parametrize(
    ("kl_nats", "factor"), [(0.02, 1.0), (0.022, 1.01), (0.019, 0.995), (0.5, 1.02), (0.0, 0.98), (0.024, 1.02)]
)
def test_the_coefficient_moves_a_tenth_of_the_clipped_relative_error(kl_nats, factor):
    after = KLController(coefficient=0.05, target=0.02).after(kl_nats)
    assert after.coefficient == pytest.approx(0.05 * factor)
    assert after.target == 0.02


def test_without_a_target_the_coefficient_is_constant():
    fixed = kl_controller.configured(PPO(kl_coefficient=0.05))
    assert fixed.after(9.0) == fixed


def test_only_an_adapted_coefficient_is_saved_and_loaded(tmp_path):
    ppo = PPO(kl_coefficient=0.05, adaptive_kl_target=0.02)
    start = kl_controller.configured(ppo)
    kl_controller.save(start, ppo, tmp_path)
    other = PPO(kl_coefficient=0.4, adaptive_kl_target=0.02)
    assert kl_controller.load(other, tmp_path).coefficient == 0.4
    kl_controller.save(start.after(1.0), ppo, tmp_path)
    assert kl_controller.load(ppo, tmp_path) == start.after(1.0)
    fixed = PPO(kl_coefficient=0.1)
    assert kl_controller.load(fixed, tmp_path) == kl_controller.configured(fixed)


def test_a_target_that_no_coefficient_can_reach_is_refused():
    with pytest.raises(ValueError, match="adaptive_kl_target scales kl_coefficient, which is 0; set it above 0"):
        PPO(kl_coefficient=0.0, adaptive_kl_target=0.02)
