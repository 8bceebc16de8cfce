"""Laws that every advantage estimator must obey: `gae` obeys all of them, and each faulty estimator breaks some.

A law takes an estimator, an episode, both rates, and a source of further draws. T = tokens, A = action tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agile_ray.credit.gae import gae
from agile_ray.types import NO_TURN
from tests.fakes import faulty_gae
from tests.fakes.faulty_gae import Estimator, Float64, Tokens

Law = Callable[[Estimator, Tokens, float, float, st.DataObject], None]

rates = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)
rewards = st.sampled_from([0.0, 0.7, 1.0]) | st.floats(-1, 1)
garbage = st.floats(-9, 9)
steps = st.tuples(rewards, st.floats(-1, 1), st.booleans())  # reward, value, is the first of its turn


def action_gae(tokens: Tokens, discount: float, gae_lambda: float) -> Float64:
    """The estimator under test: `gae` after leaving out what the policy did not write."""
    acted = tokens.take(tokens.action_mask)
    return gae(
        acted.rewards,
        acted.values,
        session_ids_A=acted.session_ids,
        turn_ids_A=acted.turn_ids,
        discount=discount,
        gae_lambda=gae_lambda,
    )


def session(drawn: Sequence[tuple[float, float, bool]], number: int = 0) -> Tokens:
    """A session of action tokens alone."""
    return Tokens(
        rewards=np.array([reward for reward, _, _ in drawn]),
        values=np.array([value for _, value, _ in drawn]),
        action_mask=np.ones(len(drawn), dtype=np.bool_),
        session_ids=np.full(len(drawn), number),
        turn_ids=np.cumsum([first and index > 0 for index, (_, _, first) in enumerate(drawn)]),
    )


def concatenated(sessions: Sequence[Tokens]) -> Tokens:
    return Tokens(**{name: np.concatenate([getattr(one, name) for one in sessions]) for name in Tokens.__slots__})


def insert(tokens: Tokens, indices: Sequence[int], values: Sequence[float]) -> Tokens:
    """Insert observation tokens before those indices, into the session that follows; at the end, into the last one."""
    where = np.array(indices, dtype=np.int64)
    return Tokens(
        rewards=np.insert(tokens.rewards, where, 0.0),
        values=np.insert(tokens.values, where, values),
        action_mask=np.insert(tokens.action_mask, where, False),
        session_ids=np.insert(
            tokens.session_ids, where, tokens.session_ids[np.minimum(where, len(tokens.rewards) - 1)]
        ),
        turn_ids=np.insert(tokens.turn_ids, where, NO_TURN),
    )


@st.composite
def insertions(draw: st.DrawFn, tokens: Tokens) -> Tokens:
    """The same actions with more observation tokens between them."""
    inserted = draw(st.lists(st.tuples(st.integers(0, len(tokens.rewards)), garbage), max_size=6))
    return insert(tokens, [index for index, _ in inserted], [value for _, value in inserted])


episodes = (
    st.lists(st.lists(steps, min_size=1, max_size=6), min_size=1, max_size=3)
    .map(lambda drawn: concatenated([session(one, number) for number, one in enumerate(drawn)]))
    .flatmap(insertions)
)


def assert_close(found: Float64, wanted: Float64) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def inserting_observations_changes_nothing(estimator, tokens, discount, gae_lambda, data):
    longer = data.draw(insertions(tokens))
    assert_close(estimator(longer, discount, gae_lambda), estimator(tokens, discount, gae_lambda))


def padding_changes_nothing(estimator, tokens, discount, gae_lambda, data):
    parts = tokens.sessions()
    width = max(len(part.rewards) for part in parts) + data.draw(st.integers(0, 3))
    left = data.draw(st.booleans())
    padded = []
    for part in parts:
        missing = width - len(part.rewards)
        values = data.draw(st.lists(garbage, min_size=missing, max_size=missing))
        padded.append(insert(part, [0 if left else len(part.rewards)] * missing, values))
    assert_close(estimator(concatenated(padded), discount, gae_lambda), estimator(tokens, discount, gae_lambda))


def packing_changes_nothing(estimator, tokens, discount, gae_lambda, data):
    parts = tokens.sessions()
    order = data.draw(st.permutations(range(len(parts))))
    apart = [estimator(parts[index], discount, gae_lambda) for index in order]
    assert_close(
        estimator(concatenated([parts[index] for index in order]), discount, gae_lambda), np.concatenate(apart)
    )


def relabelling_turns_changes_nothing(estimator, tokens, discount, gae_lambda, data):
    labels = np.cumsum(data.draw(st.lists(st.integers(1, 5), min_size=6, max_size=6)))
    relabelled = replace(tokens, turn_ids=np.where(tokens.action_mask, labels[tokens.turn_ids], NO_TURN))
    assert_close(estimator(relabelled, discount, gae_lambda), estimator(tokens, discount, gae_lambda))


def merging_and_splitting_turns_changes_nothing(estimator, tokens, discount, gae_lambda, data):
    count = len(tokens.rewards)
    turn_ids = np.cumsum(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    recut = replace(tokens, turn_ids=np.where(tokens.action_mask, turn_ids, NO_TURN))
    assert_close(estimator(recut, discount, gae_lambda), estimator(tokens, discount, gae_lambda))


def a_reward_close_to_zero_counts_as_zero(estimator, tokens, discount, gae_lambda, data):
    touched = replace(tokens, rewards=np.where(tokens.action_mask & (tokens.rewards == 0), 1e-9, tokens.rewards))
    assert_close(estimator(touched, discount, gae_lambda), estimator(tokens, discount, gae_lambda))


def undiscounted_it_is_the_rewards_to_come_minus_the_value(estimator, tokens, discount, gae_lambda, data):
    acted = [part.take(part.action_mask) for part in tokens.sessions()]
    still = [[sum(part.rewards[index:]) for index in range(len(part.rewards))] for part in acted]
    assert_close(estimator(tokens, 1.0, 1.0), np.concatenate(still) - np.concatenate([part.values for part in acted]))


def it_is_the_double_sum(estimator, tokens, discount, gae_lambda, data):
    wanted = []
    for part in tokens.sessions():
        rewards, values = part.rewards[part.action_mask], part.values[part.action_mask]
        td_errors = rewards + discount * np.append(values[1:], 0.0) - values
        later = range(len(rewards))
        wanted += [sum((discount * gae_lambda) ** (k - t) * td_errors[k] for k in later[t:]) for t in later]
    assert_close(estimator(tokens, discount, gae_lambda), np.array(wanted))


LAWS: list[Law] = [
    inserting_observations_changes_nothing,
    padding_changes_nothing,
    packing_changes_nothing,
    relabelling_turns_changes_nothing,
    merging_and_splitting_turns_changes_nothing,
    a_reward_close_to_zero_counts_as_zero,
    undiscounted_it_is_the_rewards_to_come_minus_the_value,
    it_is_the_double_sum,
]

CAUGHT: list[tuple[Estimator, Law]] = [
    (faulty_gae.zeroed_observations, inserting_observations_changes_nothing),
    (faulty_gae.zeroed_observations, it_is_the_double_sum),
    (faulty_gae.valued_observations, inserting_observations_changes_nothing),
    (faulty_gae.valued_observations, padding_changes_nothing),
    (faulty_gae.valued_observations, it_is_the_double_sum),
    (faulty_gae.reward_turns, a_reward_close_to_zero_counts_as_zero),
    (faulty_gae.reward_turns, undiscounted_it_is_the_rewards_to_come_minus_the_value),
    (faulty_gae.reward_turns, it_is_the_double_sum),
    (faulty_gae.turn_steps, merging_and_splitting_turns_changes_nothing),
    (faulty_gae.turn_steps, it_is_the_double_sum),
    (faulty_gae.turn_distances, relabelling_turns_changes_nothing),
    (faulty_gae.turn_distances, it_is_the_double_sum),
    (faulty_gae.one_session, packing_changes_nothing),
    (faulty_gae.one_session, undiscounted_it_is_the_rewards_to_come_minus_the_value),
    (faulty_gae.one_session, it_is_the_double_sum),
]


def name_of(function: Callable[..., object]) -> str:
    return function.__name__


def check(law: Law, estimator: Estimator, how: settings | None = None) -> None:
    @how or settings()
    @given(tokens=episodes, discount=rates, gae_lambda=rates, data=st.data())
    def holds(tokens: Tokens, discount: float, gae_lambda: float, data: st.DataObject) -> None:
        law(estimator, tokens, discount, gae_lambda, data)

    holds()


@pytest.mark.parametrize("law", LAWS, ids=name_of)
def test_gae_obeys_the_law(law):
    check(law, action_gae)


@pytest.mark.parametrize(("estimator", "law"), CAUGHT, ids=name_of)
def test_a_faulty_estimator_breaks_the_law(estimator, law):
    # The same examples each time; the first that fails is enough.
    how = settings(database=None, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises((AssertionError, IndexError), match=r"Mismatched elements|index \d+ is out of bounds"):
        check(law, estimator, how)


def test_each_law_catches_a_faulty_estimator():
    assert {law for _, law in CAUGHT} == set(LAWS)


@pytest.mark.parametrize("estimator", [faulty_gae.zeroed_observations, faulty_gae.valued_observations], ids=name_of)
def test_without_discount_counting_observations_breaks_no_law_of_returns(estimator):
    check(undiscounted_it_is_the_rewards_to_come_minus_the_value, estimator)


def turns(*, rewards: Sequence[float], observations: int, critic: Sequence[float]) -> Tokens:
    """Turns of 8 action tokens, each rewarded on its last, with observation tokens between turns.

    Args:
        critic: value of every action token and observation token of a turn.
    """
    drawn = [(reward * (k == 7), critic[turn], k == 0) for turn, reward in enumerate(rewards) for k in range(8)]
    after = [8 * turn for turn in range(1, len(rewards)) for _ in range(observations)]
    return insert(session(drawn), after, [critic[index // 8] for index in after])


NO_CRITIC = (0.0, 0.0, 0.0, 0.0)
HOPE = (0.5, 0.75, 0.875, 0.9375)


@pytest.mark.parametrize(
    ("estimator", "near", "far", "change"),
    [
        # first token's credit with 0 and with 64 observation tokens between turns; largest change with a critic
        (action_gae, 0.204, 0.204, 0.0),
        (faulty_gae.zeroed_observations, 0.204, 1.1e-5, 0.942),
        (faulty_gae.valued_observations, 0.204, 1.1e-5, 0.126),
        (faulty_gae.reward_turns, 0.204, 0.204, 0.0),
        (faulty_gae.turn_steps, 0.857, 0.857, 0.0),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_64_observation_tokens_between_turns_change_credit_as_listed(estimator, near, far, change):
    def estimate(observations: int, critic: Sequence[float], gae_lambda: float) -> Float64:
        return estimator(turns(rewards=[0, 0, 0, 1], observations=observations, critic=critic), 1.0, gae_lambda)

    assert estimate(0, NO_CRITIC, 0.95)[0] == pytest.approx(near, rel=0.03)
    assert estimate(64, NO_CRITIC, 0.95)[0] == pytest.approx(far, rel=0.03)
    assert np.abs(estimate(64, HOPE, 0.95) - estimate(0, HOPE, 0.95)).max() == pytest.approx(change, abs=1e-3)
    assert_close(estimate(0, HOPE, 1.0), 1 - np.repeat(HOPE, 8))
    assert_close(estimate(64, HOPE, 1.0), 1 - np.repeat(HOPE, 8))


def test_turns_that_earn_nothing_keep_their_own_advantages():
    advised = turns(rewards=[0, 0.7, 0, 0], observations=2, critic=NO_CRITIC)
    assert_close(action_gae(advised, 1.0, 1.0), np.repeat([0.7, 0.7, 0.0, 0.0], 8))
    with pytest.raises(IndexError):
        faulty_gae.reward_turns(advised, 1.0, 1.0)


def test_finding_turns_by_their_rewards_merges_turns_that_earn_nothing():
    nothing, almost = (turns(rewards=[e, e, e, 1], observations=2, critic=NO_CRITIC) for e in (0, 1e-9))
    assert_close(action_gae(nothing, 1.0, 0.95), action_gae(almost, 1.0, 0.95))
    assert faulty_gae.reward_turns(nothing, 1.0, 0.95)[0] == pytest.approx(0.95**31)
    assert faulty_gae.reward_turns(almost, 1.0, 0.95)[0] == pytest.approx(0.95 ** (3 + 7))
