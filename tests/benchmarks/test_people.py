"""The simulation of people: cases worked out by hand, Little's law, and the pacing rule where nobody asks."""

from dataclasses import replace

import numpy as np
import pytest

from agile_ray.errors import ContractError
from benchmarks import pacing
from benchmarks.people import BEFORE, Fleet, needed, simulate

EXACT = Fleet(seats=1, lanes=1, people=1, asked=1.0, session_spread=0.0, think_spread=0.0, sessions=5)


def test_one_lane_plays_and_waits_in_turn() -> None:
    found = simulate(EXACT)
    assert found.wall_s == pytest.approx(5 * (20 + 30))
    assert found.waits_s == pytest.approx([30.0] * 5)


def test_two_lanes_share_a_seat_and_the_slower_of_seat_and_person_sets_the_pace() -> None:
    person = simulate(replace(EXACT, lanes=2, sessions=50))
    assert person.wall_s == pytest.approx(2 * 50 * 30, rel=0.02)
    assert person.people_busy == pytest.approx(1.0, abs=0.01)
    seat = simulate(replace(EXACT, lanes=3, people=3, sessions=50))
    assert seat.wall_s == pytest.approx(3 * 50 * 20, rel=0.02)
    assert seat.seats_busy == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("max_age", [0, 1])
def test_where_nobody_asks_the_pacing_rule_holds(max_age: int) -> None:
    fleet = Fleet(seats=3, lanes=3, people=1, asked=0.0, session_spread=0.0, sessions=2, batches=4, max_age=max_age)
    play_s = np.full((4, 3), 40.0)
    best = pacing.simulate(play_s, [25.0] * 4, max_age=max_age)
    assert simulate(replace(fleet, learn_s=25.0)).wall_s == pytest.approx(best.wall_s)


def test_as_many_are_parked_as_ask_in_the_time_that_an_answer_takes() -> None:
    fleet = Fleet(seats=16, lanes=64, people=16, asked=0.3, until_s=8000.0)
    found = simulate(fleet)
    asks_per_s = found.seats_busy * fleet.seats / fleet.session_s * fleet.asked
    assert found.parked == pytest.approx(asks_per_s * float(np.mean(found.waits_s)), rel=0.15)
    assert len(found.waits_s) == pytest.approx(asks_per_s * 8000, rel=0.1)


def test_one_person_fewer_than_needed_leaves_seats_idle() -> None:
    fleet = Fleet(seats=8, lanes=64, people=1, asked=0.4, until_s=20_000.0)
    people = needed(fleet)
    assert people is not None
    offered = 8 / 20 * 0.4 * 30 * np.exp(0.5)  # people whom the asks of busy seats keep busy
    assert 0.9 * offered < people < 2 * offered
    assert simulate(replace(fleet, people=people)).seats_busy >= 0.95
    assert simulate(replace(fleet, people=people - 1)).seats_busy < 0.95


def test_no_number_of_people_helps_too_few_lanes() -> None:
    assert needed(Fleet(seats=8, lanes=8, people=1, asked=0.5, until_s=3000.0)) is None


def test_nobody_to_ask_is_refused() -> None:
    with pytest.raises(ContractError, match="people: .* at least 1"):
        simulate(replace(EXACT, people=0))


def test_a_session_leaves_its_seat_for_its_ask() -> None:
    assert 0 < BEFORE < 1
    found = simulate(replace(EXACT, people=1, sessions=400))
    assert found.seats_busy == pytest.approx(20 / 50, abs=0.01)
