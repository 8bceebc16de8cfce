"""The pacing rule: cases worked out by hand, and a slow version that applies the rule until nothing moves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agile_ray.errors import ContractError
from benchmarks.pacing import Timeline, simulate

TWO_LANES = np.array([[4.0, 1.0], [1.0, 4.0], [2.0, 2.0]])


def test_at_age_0_play_and_learning_take_turns() -> None:
    found = simulate(TWO_LANES, [3.0, 3.0, 3.0], max_age=0)
    assert found.begins.tolist() == [[0, 0], [7, 7], [14, 14]]
    assert found.learn_begins.tolist() == [4, 11, 16]
    assert (found.wall_s, found.learner_idle_s) == (19.0, 10.0)


def test_at_age_1_lanes_play_while_the_learner_works() -> None:
    found = simulate(TWO_LANES, [3.0, 3.0, 3.0], max_age=1)
    # lane 0 plays from 0 to 4 and on to 5; lane 1 from 0 to 1 and on to 5; both then wait for version 1, live at 7
    assert found.ends.tolist() == [[4, 1], [5, 5], [9, 9]]
    assert found.learn_begins.tolist() == [4, 7, 10]
    assert found.wall_s == 13.0


def test_who_has_no_seat_waits_for_the_next_free_one() -> None:
    found = simulate(np.array([[3.0, 2.0, 2.0]]), [1.0], max_age=0, seats=2)
    assert found.begins.tolist() == [[0, 0, 2]]
    assert found.wall_s == 5.0


def test_a_window_of_credit_holds_the_batch_back_until_later_slices_are_played() -> None:
    play = np.ones((3, 1))
    assert simulate(play, [1.0, 1.0, 1.0], max_age=1, window=1).learn_begins.tolist() == [1, 2, 3]
    # batch 0 needs slice 1; slice 2 needs version 1; the last batch needs no slice that does not exist
    assert simulate(play, [1.0, 1.0, 1.0], max_age=1, window=2).learn_begins.tolist() == [2, 4, 5]


@pytest.mark.parametrize(("max_age", "window", "seats"), [(0, 2, None), (1, 0, None), (1, 1, 0)])
def test_what_could_never_end_is_refused(max_age: int, window: int, seats: int | None) -> None:
    with pytest.raises(ContractError, match="pacing"):
        simulate(np.ones((2, 2)), [1.0, 1.0], max_age=max_age, window=window, seats=seats)


def test_every_slice_has_its_batch() -> None:
    with pytest.raises(ContractError, match="learn_s"):
        simulate(np.ones((2, 2)), [1.0], max_age=0)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, object]:
    slices, lanes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    times = st.integers(0, 9).map(float)
    play = [[draw(times) for _ in range(lanes)] for _ in range(slices)]
    max_age = draw(st.integers(0, 3))
    return {
        "play_s": np.array(play),
        "learn_s": [draw(times) for _ in range(slices)],
        "max_age": max_age,
        "window": draw(st.integers(1, max_age + 1)),
    }


def by_the_rule(play_s, learn_s, *, max_age, window) -> Timeline:
    """Push every time as late as the rule demands, until none moves."""
    slices, lanes = play_s.shape
    begins, learn_begins = np.zeros(play_s.shape), np.zeros(slices)
    for _ in range(4 * slices + 4):
        ends, live = begins + play_s, np.concatenate([[0.0], learn_begins + learn_s])
        for k in range(slices):
            earlier = ends[k - 1] if k else np.zeros(lanes)
            begins[k] = np.maximum(earlier, live[max(0, k - max_age)])
            needed = ends[: min(k + window, slices)].max()
            learn_begins[k] = max(needed, live[k])
    return Timeline(
        begins=begins, ends=begins + play_s, learn_begins=learn_begins, learn_ends=learn_begins + np.array(learn_s)
    )


@given(runs())
def test_with_a_seat_for_every_lane_it_is_what_the_rule_says(run) -> None:
    found, expected = simulate(**run), by_the_rule(**run)
    for name in Timeline.__slots__:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@given(runs(), st.integers(1, 4))
def test_no_token_is_older_than_allowed_and_no_seat_is_taken_twice(run, seats: int) -> None:
    found = simulate(**run, seats=seats)
    live = np.concatenate([[0.0], found.learn_ends])
    for k in range(len(found.begins)):
        assert (found.begins[k] >= live[max(0, k - run["max_age"])]).all()
    for moment in found.begins.flat:
        assert ((found.begins <= moment) & (found.ends > moment)).sum() <= seats
    assert found.wall_s >= max(sum(run["learn_s"]), run["play_s"].sum() / seats)


@given(runs())
def test_age_0_takes_the_slowest_lane_of_each_slice_and_older_tokens_never_take_longer(run) -> None:
    play_s, learn_s = run["play_s"], run["learn_s"]
    walls = [simulate(play_s, learn_s, max_age=age).wall_s for age in range(4)]
    assert walls[0] == play_s.max(axis=1).sum() + sum(learn_s)
    assert walls == sorted(walls, reverse=True)
