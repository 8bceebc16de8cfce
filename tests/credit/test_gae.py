"""GAE on arrays small enough to read, in both precisions, and refused layouts; test_gae_properties.py has its laws."""

import asyncio

import numpy as np
import pytest

from agile_ray.config import PPO
from agile_ray.credit.gae import explained_variance, gae, whiten
from agile_ray.errors import ContractError
from agile_ray.segments import cut
from agile_ray.types import NO_TURN, TokenScores, TrainingRow
from learner.targets import make_targets
from tests.fakes.worlds import ASKS, Says, changed, lane, question


def estimate(*, sessions: list[int], turns: list[int], values: int | None = None):
    count = len(sessions) if values is None else values
    return gae(
        np.zeros(len(sessions)),
        np.zeros(count),
        session_ids_A=np.array(sessions, np.int64),
        turn_ids_A=np.array(turns, np.int32),
        discount=1.0,
        gae_lambda=1.0,
    )


def one_session(rewards, values, *, discount: float, gae_lambda: float):
    """All in one turn."""
    ids = np.zeros(len(rewards), np.int64)
    return gae(rewards, values, session_ids_A=ids, turn_ids_A=ids, discount=discount, gae_lambda=gae_lambda)


def test_with_both_rates_one_the_advantage_is_the_sum_of_later_rewards_minus_the_value():
    advantages = gae(
        np.array([0, -0.3, 1, 1], dtype=np.float32),
        np.array([0.5, 0.25, 0.75, 0.5], dtype=np.float32),
        session_ids_A=np.array([0, 0, 0, 1]),
        turn_ids_A=np.array([0, 1, 1, 0], dtype=np.int32),
        discount=1.0,
        gae_lambda=1.0,
    )
    np.testing.assert_allclose(advantages, [0.2, 0.45, 0.25, 0.5], atol=1e-6)


def test_gae_of_three_tokens_matches_a_computation_by_hand():
    advantages = one_session(np.array([0.0, 0.0, 1.0]), np.array([0.25, 0.5, 0.5]), discount=0.5, gae_lambda=0.5)
    np.testing.assert_allclose(advantages, [-0.03125, -0.125, 0.5], rtol=0, atol=1e-15)  # td_errors 0, -0.25, 0.5


def test_float64_input_gives_float64_advantages():
    wide = one_session(np.array([0.1, 0.2]), np.array([0.3, 0.4]), discount=1.0, gae_lambda=1.0)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, [0.0, -0.2], rtol=0, atol=1e-15)


def test_float32_stays_float32_and_is_summed_in_float64():
    rewards = np.full(1025, 2.0**-25, np.float32)
    rewards[-1] = 1.0  # a float32 sum from the end would never leave 1
    narrow = one_session(rewards, np.zeros(1025, np.float32), discount=1.0, gae_lambda=1.0)
    assert narrow.dtype == np.float32
    assert narrow[0] == 1 + 2.0**-15


def test_no_tokens_have_no_advantages():
    assert estimate(sessions=[], turns=[]).tolist() == []


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ContractError, match=r"gae: .*rewards \(2,\), values \(3,\), session_ids \(2,\)"):
        estimate(sessions=[0, 0], turns=[0, 0], values=3)
    with pytest.raises(ContractError, match=r"gae: .*turn_ids \(1,\)"):
        estimate(sessions=[0, 0], turns=[0])


def test_turns_may_stay_or_rise_within_a_session_and_start_again_in_the_next():
    assert len(estimate(sessions=[7, 7, 7, 3, 3], turns=[0, 0, 2, 0, 1])) == 5


def test_a_turn_that_goes_back_is_refused():
    with pytest.raises(ContractError, match="token 3 goes from 1 to 0"):
        estimate(sessions=[7, 3, 3, 3], turns=[2, 0, 1, 0])
    with pytest.raises(ContractError, match="token 1 goes from 1 to 0"):
        gae(
            np.zeros(2),
            np.zeros(2),
            session_ids_A=np.zeros(2, np.int64),
            turn_ids_A=np.array([1, 0], np.uint8),
            discount=1.0,
            gae_lambda=1.0,
        )


def test_an_action_token_without_a_turn_is_refused():
    with pytest.raises(ContractError, match="an action token has a turn, token 0 has -1"):
        estimate(sessions=[7, 7], turns=[NO_TURN, 0])


def test_a_session_that_continues_after_another_is_refused():
    with pytest.raises(ContractError, match="session 7 continues"):
        estimate(sessions=[7, 7, 3, 7], turns=[0, 0, 0, 1])


def test_targets_check_the_turns_of_the_rows():
    played = asyncio.run(lane(question(0, "does it rust ?")).play(Says(*ASKS)))
    (segment,) = cut(played)
    scores = TokenScores(**dict.fromkeys(TokenScores.__slots__, np.zeros(segment.actions, np.float32)))
    row = TrainingRow(segment=segment, scores=scores, credit=0.0, credit_baseline=0.0, decided_after=0, wrote=True)
    assert make_targets([row], PPO())[0].own_returns.shape == (segment.actions,)
    turned = np.where(segment.action_mask, segment.turn_ids.max() - segment.turn_ids, NO_TURN)
    with pytest.raises(ContractError, match="turns of a session never go back"):
        make_targets([changed(row, segment=changed(segment, turn_ids=turned))], PPO())


def test_whitened_advantages_have_mean_zero_and_deviation_one_and_keep_their_order():
    whitened = whiten(np.array([3.0, 1.0, 2.0], dtype=np.float32))
    np.testing.assert_allclose(whitened, [1.2247449, -1.2247449, 0.0], atol=1e-6)
    np.testing.assert_array_equal(whiten(np.full(3, 7, np.float32)), [0, 0, 0])


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_a_constant():
    returns = np.array([0.0, 1.0, 0.7], dtype=np.float32)
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(np.full(3, 0.5, np.float32), returns) == pytest.approx(0.0, abs=1e-6)
