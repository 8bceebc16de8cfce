"""Credit by a fit: close to the truth where it is known, with wide intervals where the data can't tell."""

import re
from collections.abc import Iterator
from itertools import pairwise
from random import Random

import numpy as np
import pytest

import envs
from agile_ray.config import RunConfig
from agile_ray.credit.fitted import TD_LAMBDA, Schema, check_windows, fitted, metrics, topics, transitions
from agile_ray.credit.lstd import Fit, fit
from agile_ray.errors import ConfigError
from agile_ray.types import Ending, Float64, MemoryUse, Session
from launch.run import shipped_configs
from tests.fakes.fitted_worlds import (
    GUESS,
    LENGTH,
    PRICE,
    RECUR,
    WORTH,
    asks_whatever_comes,
    busy,
    linear,
    recurring,
    session,
    shop,
    two_topics,
)
from tests.fakes.worlds import changed

STREAMS = 200
WORTH_ASKING = 0.2  # credit above which asking beats guessing at this price: 1 - 0.7 + A > 0.5


def learned(sessions: list[Session], *, td_lambda: float = TD_LAMBDA) -> tuple[Fit, Schema]:
    schema = Schema.of([sessions], "item")
    return fit(transitions([sessions], schema), prior=schema.prior, td_lambda=td_lambda), schema


def _wrote(one: Session) -> tuple[MemoryUse, ...]:
    return (MemoryUse(kind="qa", writer=one.position, similarity=1.0),)


def by_position(stream: list[Session], found: Fit, schema: Schema) -> Float64:
    """The credit that a session at each position would have if it wrote what memory lacks, float64 [S]."""
    asking = [changed(one, known=False, writes=_wrote(one)) for one in stream]
    return fitted(transitions([asking], schema), found, sessions=len(stream))


@pytest.mark.parametrize("ask", [0.25, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_credit_is_near_the_truth_in_the_toy_and_makes_asking_at_first_sight_right(ask, seed):
    random = np.random.default_rng(seed)
    streams = [recurring(random, stream, ask) for stream in range(STREAMS)]
    sessions = [one for stream, _ in streams for one in stream]
    again = np.array([times for _, stream in streams for times in stream])
    positions = np.array([one.position for one in sessions])
    credit = by_position(streams[0][0], *learned(sessions))[positions]

    gain = 1 - (ask * (1 - PRICE / 1000) + (1 - ask) * GUESS)
    truth = np.array([0.0, gain, (2 - ask) * gain])  # by how often the item comes again; tests/credit/test_worlds.py
    first, lacking = again == RECUR - 1, again >= 0
    assert credit[first].mean() == pytest.approx(truth[2], abs={0.25: 0.25, 0.5: 0.15}.get(ask, 0.12))
    assert (credit[first] > WORTH_ASKING).mean() > 0.98
    # the state contains the position but not the item, so the best fit is right on average at each position
    average = [truth[again[lacking & (positions == position)]].mean() for position in positions[lacking]]
    assert np.sqrt(np.mean((credit[lacking] - average) ** 2)) < (0.2 if ask < 0.9 else 0.1)


@pytest.mark.parametrize(("streams", "length"), [(100, 24), (10, 1000)])
def test_the_interval_is_that_of_the_prior_where_memory_is_a_function_of_the_position(streams, length):
    sessions = asks_whatever_comes(np.random.default_rng(0), streams=streams, length=length)
    found, schema = learned(sessions)
    measured = metrics(found, schema)
    assert measured["credit_worth/item"] == pytest.approx(0.0, abs=0.1)
    assert measured["credit_worth_low/item"] < -1.8
    assert measured["credit_worth_high/item"] > 1.8


def metrics_of(seed: int, *, streams: int) -> dict[str, float]:
    found, schema = learned(linear(np.random.default_rng(seed), streams=streams))
    return metrics(found, schema)


def width(metrics: dict[str, float]) -> float:
    return metrics["credit_worth_high/item"] - metrics["credit_worth_low/item"]


def test_the_interval_shrinks_with_the_root_of_the_number_of_streams():
    widths = [np.mean([width(metrics_of(seed, streams=n)) for seed in range(4)]) for n in (50, 200, 800)]
    for few, four_times in pairwise(widths):
        assert few / four_times == pytest.approx(2.0, rel=0.15)


def test_the_interval_covers_the_truth_of_a_linear_world():
    found = [metrics_of(seed, streams=60) for seed in range(100)]
    covered = [f["credit_worth_low/item"] <= WORTH <= f["credit_worth_high/item"] for f in found]
    assert np.mean(covered) >= 0.85
    worths = [f["credit_worth/item"] for f in found]
    assert np.mean(worths) == pytest.approx(WORTH, abs=0.15)  # shrunk a little
    assert 0.9 < np.mean([width(f) for f in found]) / (2 * 1.96 * np.std(worths)) < 1.4  # the prior's share is in it


def states(sessions: list[Session]) -> Float64:
    """Features of whole streams, computed directly from their definitions."""
    position = np.array([one.position for one in sessions])
    left = (LENGTH - position) / LENGTH
    here = np.array([one.topic == "item" for one in sessions]).reshape(-1, LENGTH)
    met = (here.cumsum(axis=1) - here).reshape(-1)
    size = np.array([one.hindsight.memory_sizes["item"] for one in sessions])
    ones = np.ones(len(sessions))
    return np.stack([ones, left, left**2, left**3, met, left * met, size, left * size], axis=1)


def memory_rewards(sessions: list[Session]) -> Float64:
    """Rewards of the fit: the gain where memory holds the answer, else 0."""
    here = np.array([one.topic == "item" for one in sessions])
    known = np.array([one.hindsight.known for one in sessions])
    rewards = np.array([one.own_reward for one in sessions])
    return here * known * (rewards[here & known].mean() - rewards[here & ~known].mean())


def unshrunk(sessions: list[Session], *, td_lambda: float) -> Float64:
    schema = Schema.of([sessions], "item")
    return fit(transitions([sessions], schema), prior=np.full(len(schema.names), np.inf), td_lambda=td_lambda).theta


def test_with_lambda_1_the_fit_is_least_squares_on_returns():
    sessions = two_topics(0)
    rewards = memory_rewards(sessions).reshape(-1, LENGTH)
    returns = rewards[:, ::-1].cumsum(axis=1)[:, ::-1].reshape(-1)
    slow, *_ = np.linalg.lstsq(states(sessions), returns)
    np.testing.assert_allclose(unshrunk(sessions, td_lambda=1.0), slow, rtol=1e-6)


def test_with_lambda_0_the_fit_is_the_fixed_point_of_regressing_on_its_own_prediction():
    sessions = two_topics(1)
    rewards = memory_rewards(sessions)
    now = states(sessions)
    after = now.reshape(-1, LENGTH, now.shape[1])[:, 1:]
    following = np.pad(after, ((0, 0), (0, 1), (0, 0))).reshape(now.shape)
    slow = np.zeros(now.shape[1])
    for _ in range(1000):
        slow, *_ = np.linalg.lstsq(now, rewards + following @ slow)
    np.testing.assert_allclose(unshrunk(sessions, td_lambda=0.0), slow, rtol=1e-6)


def test_a_failed_session_splits_its_stream_and_has_no_credit():
    sessions = linear(np.random.default_rng(2), streams=30)
    broken = [changed(one, ending=Ending.FAILED, error="disk gone") if one.position == 5 else one for one in sessions]
    apart = [one for one in sessions if one.position != 5]
    found, schema = learned(broken)
    np.testing.assert_allclose(found.theta, learned(apart)[0].theta)
    np.testing.assert_allclose(found.covariance, learned(apart)[0].covariance)
    assert not np.allclose(found.theta, learned(sessions)[0].theta)

    credit = fitted(transitions([broken], schema), found, sessions=len(broken))
    had = {one.position for one, amount in zip(broken, credit, strict=True) if amount != 0.0}
    assert had == set(range(LENGTH - 1)) - {5}  # no session follows the last
    assert all(amount == 0.0 for one, amount in zip(broken, credit, strict=True) if not one.writes)


def test_writing_again_what_memory_holds_has_no_credit():
    sessions = [one for stream in range(STREAMS) for one in recurring(np.random.default_rng(stream), stream, 0.5)[0]]
    found, schema = learned(sessions)
    again = [changed(one, writes=_wrote(one)) for one in sessions]
    credit = fitted(transitions([again], schema), found, sessions=len(again))
    known = np.array([one.hindsight.known for one in again])
    not_last = np.array([one.position + 1 < one.stream_length for one in again])
    assert known.sum() > 1000
    assert not credit[known].any()
    assert (credit[~known & not_last] > 0).mean() > 0.95


def test_the_order_in_which_sessions_are_given_does_not_matter():
    sessions = linear(np.random.default_rng(3), streams=30)
    shuffled = [sessions[position] for position in np.random.default_rng(4).permutation(len(sessions))]
    (found, schema), (other, _) = learned(sessions), learned(shuffled)
    np.testing.assert_allclose(other.theta, found.theta)
    credit = {(one.stream, one.position): amount for one, amount in _credits(sessions, found, schema)}
    assert credit == pytest.approx({(one.stream, one.position): a for one, a in _credits(shuffled, other, schema)})


def _credits(sessions: list[Session], found: Fit, schema: Schema) -> Iterator[tuple[Session, float]]:
    return zip(sessions, fitted(transitions([sessions], schema), found, sessions=len(sessions)).tolist(), strict=True)


def test_partly_collected_streams_are_learned_from():
    sessions = linear(np.random.default_rng(5), streams=800)
    halves = [one for one in sessions if (one.position < LENGTH // 2) == (int(one.stream[1:]) % 2 == 0)]
    found, schema = learned(halves)
    assert metrics(found, schema)["credit_worth/item"] == pytest.approx(WORTH, abs=0.2)


def test_without_any_writes_there_is_no_credit():
    sessions = [
        session(0, position, 3, size=0, known=False, correct=True, asked=False, wrote=False) for position in range(3)
    ]
    sessions = [changed(one, memory_sizes={}) for one in sessions]
    found, schema = learned(sessions)
    assert topics([sessions]) == []
    assert fitted(transitions([sessions], schema), found, sessions=3).tolist() == [0.0, 0.0, 0.0]


def test_rewards_on_other_topics_change_nothing():
    random = np.random.default_rng(8)
    sessions = [changed(one, topic=random.choice(["item", "other"])) for one in linear(random, streams=60)]
    richer = [changed(one, correct=True) if one.topic == "other" else one for one in sessions]
    assert topics([sessions]) == ["item", "other"]
    (found, schema), (same, _) = learned(sessions), learned(richer)
    np.testing.assert_array_equal(same.theta, found.theta)
    credit = _credits(sessions, found, schema)
    assert all(
        (amount == 0.0) == (one.topic == "other" or one.hindsight.known or not one.writes or one.position == LENGTH - 1)
        for one, amount in credit
    )


def test_the_fit_uses_only_the_part_of_rewards_that_memory_contributed():
    sessions = linear(np.random.default_rng(9), streams=60)
    np.testing.assert_allclose(transitions([sessions], Schema.of([sessions], "item")).rewards, memory_rewards(sessions))


def test_luck_changes_the_fit_only_through_the_mean_rewards():
    sessions = linear(np.random.default_rng(10), streams=60)
    right = [one.correct for one in sessions if not one.hindsight.known]
    shuffled = iter(np.random.default_rng(11).permutation(right).tolist())
    luckier = [one if one.hindsight.known else changed(one, correct=next(shuffled)) for one in sessions]
    (found, _), (same, _) = learned(sessions), learned(luckier)
    np.testing.assert_allclose(same.theta, found.theta)
    np.testing.assert_allclose(same.covariance, found.covariance)


@pytest.mark.parametrize("streams", [1, 5])
def test_few_streams_give_a_wide_interval_even_without_residuals(streams):
    sessions = linear(np.random.default_rng(6), streams=streams)
    assert width(metrics(learned(sessions)[0], Schema.of([sessions], "item"))) > 2.0
    first = [one for one in sessions if one.position == 0]
    assert width(metrics(learned(first)[0], Schema.of([sessions], "item"))) > 3.8


def test_constant_rewards_keep_the_prior_where_memory_is_a_function_of_the_position():
    noisy = asks_whatever_comes(np.random.default_rng(7), streams=30, length=24)
    measured = metrics(learned([changed(one, correct=True) for one in noisy])[0], Schema.of([noisy], "item"))
    assert measured["credit_worth_low/item"] < -1.9
    assert measured["credit_worth_high/item"] > 1.9


def test_a_trend_per_iteration_keeps_different_policies_out_of_the_worth_of_entries():
    """The second iteration writes less and so finds less. One common trend credits the difference to entries."""
    random = np.random.default_rng(0)
    often = linear(random, streams=200)
    seldom = [changed(one, stream=f"later {one.stream}") for one in linear(random, streams=200, writing=0.1)]
    schema = Schema.of([often, seldom], "item")
    apart = metrics(fit(transitions([often, seldom], schema), prior=schema.prior, td_lambda=TD_LAMBDA), schema)
    together = metrics(learned([*often, *seldom])[0], Schema.of([often], "item"))
    assert apart["credit_worth/item"] == pytest.approx(WORTH, abs=0.1)
    assert together["credit_worth/item"] > WORTH + 0.2


def test_many_questions_in_a_stream_are_not_credited_to_its_entries():
    found, schema = learned(busy(np.random.default_rng(0), streams=400))
    measured = metrics(found, schema)
    assert measured["credit_worth/item"] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("ask", [pytest.param(0.1, marks=pytest.mark.long), 0.4])
def test_in_the_shop_credit_is_close_to_the_worth_of_entries(ask):
    played = [shop(Random(stream), stream, ask) for stream in range(300)]
    sessions = [one for stream, _ in played for one in stream]
    worth = np.array([amount for _, stream in played for amount in stream])
    credit = np.zeros(len(sessions))
    for topic in topics([sessions]):
        schema = Schema.of([sessions], topic)
        steps = transitions([sessions], schema)
        credit += fitted(steps, fit(steps, prior=schema.prior, td_lambda=TD_LAMBDA), sessions=len(sessions))
    for topic in topics([sessions]):
        wrote = np.array([one.topic == topic and bool(one.writes) for one in sessions])
        assert 0.75 < credit[wrote].mean() / worth[wrote].mean() < 1.1


def in_step(first: int, last: int, *, streams: int = 32) -> tuple[list[list[Session]], Float64]:
    """Iterations of 12 sessions of each lane, 48 to a stream, and what entries of the last one are worth."""
    lanes = []
    for lane in range(streams):
        played = [shop(Random(lane + turn * streams), lane + turn * streams, 0.25) for turn in range(-(-last // 48))]
        lanes.append(([one for stream, _ in played for one in stream], [one for _, worth in played for one in worth]))
    windows = [[one for sessions, _ in lanes for one in sessions[k : k + 12]] for k in range(first, last, 12)]
    return windows, np.array([one for _, worth in lanes for one in worth[last - 12 : last]])


def credited(iterations: list[list[Session]]) -> tuple[Float64, list[Fit]]:
    """Credit of the last iteration's sessions, and the fit of each topic."""
    credit, fits = np.zeros(sum(map(len, iterations))), []
    for topic in topics(iterations):
        schema = Schema.of(iterations, topic)
        steps = transitions(iterations, schema)
        fits.append(fit(steps, prior=schema.prior, td_lambda=TD_LAMBDA))
        credit += fitted(steps, fits[-1], sessions=len(credit))
    return credit[-len(iterations[-1]) :], fits


@pytest.mark.parametrize("last", [12, 24, 36])
def test_the_fit_returns_the_prior_until_a_stream_ends(last):
    credit, fits = credited(in_step(0, last)[0])
    assert not credit.any()
    for found in fits:
        assert np.sqrt(found.covariance[-2:, -2:].sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(("first", "last"), [(0, 48), (0, 60), (12, 72), (24, 84), (36, 96)])
def test_a_window_with_ends_of_streams_gives_credit_close_to_the_worth(first, last):
    iterations, worth = in_step(first, last)
    credit, _ = credited(iterations)
    wrote = np.array([bool(one.writes) for one in iterations[-1]])
    assert credit[wrote].mean() == pytest.approx(worth[wrote].mean(), rel=0.35)
    assert credit[wrote].min() > -0.2
    assert credit[wrote].max() < 1.2


def windowed(**overrides: object) -> RunConfig:
    """A run with these overrides of its sections `credit` and `loop`."""
    loop = {name: overrides.pop(name) for name in ("sessions_per_lane", "iterations") if name in overrides}
    sections = {"run": {"name": "t"}, "model": {"path": "m"}, "env": {"name": "shop"}}
    return RunConfig.model_validate({**sections, "credit": {"mode": "fitted", **overrides}, "loop": loop})


@pytest.mark.parametrize(
    ("sessions", "window", "length", "said"),
    [
        (12, 3, 48, "loop.sessions_per_lane=16 or more, or credit.window=4 or more, or credit.mode=linked"),
        (24, 5, 2001, "loop.sessions_per_lane=401 or more, or credit.mode=linked"),
        (24, 100, 2001, "loop.sessions_per_lane=101 or more, or credit.mode=linked"),
        (101, 5, 2001, "loop.sessions_per_lane=401 or more, or credit.window=20 or more, or credit.mode=linked"),
    ],
)
def test_fitted_credit_is_refused_where_its_windows_see_too_few_ends_of_streams(sessions, window, length, said):
    config = windowed(sessions_per_lane=sessions, window=window)
    with pytest.raises(ConfigError, match=rf"credit.mode: .* found streams of {length} sessions; set {said}"):
        check_windows(config, stream_length=length)
    check_windows(windowed(sessions_per_lane=sessions, window=window, mode="linked"), stream_length=length)
    check_windows(windowed(sessions_per_lane=sessions, window=window, iterations=0), stream_length=length)
    for key, number in re.findall(r"(sessions_per_lane|window)=(\d+)", said):  # each remedy helps, one less does not
        enough = {"sessions_per_lane": sessions, "window": window, key: int(number)}
        check_windows(windowed(**enough), stream_length=length)
        with pytest.raises(ConfigError):
            check_windows(windowed(**{**enough, key: int(number) - 1}), stream_length=length)


def test_the_windows_of_shipped_configs_let_fitted_credit_learn():
    for name in ("quickstart", "shop", "toy/three_prices"):
        config = shipped_configs.read(name, ["credit.mode=fitted"])
        length = len(envs.build(config.env, seed=0).stream(split="train", index=0).questions)
        check_windows(config, stream_length=length)
