"""GAE against the double sum of its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agile_ray.errors import ContractError
from learner.advantages import explained_variance, gae, whiten

rates = st.sampled_from([0.0, 0.5, 0.9, 1.0])
sessions = st.lists(
    st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), min_size=1, max_size=8),
    min_size=1,
    max_size=5,
)


def slow_gae(rewards: list[float], values: list[float], discount: float, decay: float) -> list[float]:
    """One session: the sum over later surprises, written out."""
    last = len(rewards)
    after = [*values[1:], 0.0]
    surprises = [rewards[k] + discount * after[k] - values[k] for k in range(last)]
    return [sum((discount * decay) ** (k - t) * surprises[k] for k in range(t, last)) for t in range(last)]


@given(sessions=sessions, discount=rates, decay=rates)
def test_gae_is_the_double_sum_in_every_session(sessions, discount, decay):
    slow = [
        advantage
        for steps in sessions
        for advantage in slow_gae([reward for reward, _ in steps], [value for _, value in steps], discount, decay)
    ]
    fast = gae(
        np.array([reward for steps in sessions for reward, _ in steps], dtype=np.float32),
        np.array([value for steps in sessions for _, value in steps], dtype=np.float32),
        np.repeat(np.arange(len(sessions)), [len(steps) for steps in sessions]),
        discount=discount,
        decay=decay,
    )
    np.testing.assert_allclose(fast, slow, rtol=1e-6, atol=1e-6)


def test_with_both_rates_one_the_advantage_is_what_is_still_to_come_minus_the_value():
    rewards = np.array([0, -0.3, 1, 1], dtype=np.float32)
    values = np.array([0.5, 0.25, 0.75, 0.5], dtype=np.float32)
    advantages = gae(rewards, values, np.array([0, 0, 0, 1]), discount=1.0, decay=1.0)
    np.testing.assert_allclose(advantages, [0.2, 0.45, 0.25, 0.5], atol=1e-6)


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ContractError, match=r"gae: .*rewards \(2,\), values \(3,\)"):
        gae(np.zeros(2, np.float32), np.zeros(3, np.float32), np.zeros(2, np.int64), discount=1.0, decay=1.0)


def test_whitened_advantages_have_mean_zero_and_deviation_one_and_keep_their_order():
    whitened = whiten(np.array([3.0, 1.0, 2.0], dtype=np.float32))
    np.testing.assert_allclose(whitened, [1.2247449, -1.2247449, 0.0], atol=1e-6)
    np.testing.assert_array_equal(whiten(np.full(3, 7, np.float32)), [0, 0, 0])


def test_explained_variance_is_one_for_a_critic_that_knows_and_zero_for_a_constant():
    returns = np.array([0.0, 1.0, 0.7], dtype=np.float32)
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(np.full(3, 0.5, np.float32), returns) == pytest.approx(0.0, abs=1e-6)
