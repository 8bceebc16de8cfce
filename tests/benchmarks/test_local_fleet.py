"""Runs whose play and learning overlap, and the cost of a turn, measured without Ray and engines."""

import pytest

from benchmarks import many_lanes, overlap
from benchmarks.local_fleet import Waits, World


def test_no_run_is_faster_than_the_pacing_rule_allows_and_overlap_allows_more_than_taking_turns():
    short = {"iterations": 3, "waits": Waits(turn_s=0.01, tool_s=0.02, ask_s=0.1), "learn_s": 0.3}
    overlapping, taking_turns = (overlap.train(max_age=age, **short) for age in (1, 0))
    for one in (overlapping, taking_turns):
        assert 0.99 * one.best_s < one.wall_s
    assert overlapping.best_s < taking_turns.best_s


def test_what_is_waited_for_depends_only_on_what_it_is_drawn_for():
    worlds = [World(Waits(turn_s=0.1, tool_s=0.1), stream_sessions=2) for _ in range(2)]
    drawn = [[one.tool_s("train/0", 1), one.turn_s("train/0", 1, 7)] for one in worlds]
    assert drawn[0] == drawn[1]
    assert worlds[0].waited_s["train/0", 1] == pytest.approx(sum(drawn[0]))
    assert worlds[0].tool_s("train/0", 0) != drawn[0][0]
    assert World(Waits(), stream_sessions=2).tool_s("train/0", 1) == 0.0


def test_every_turn_of_every_lane_is_counted():
    cost = many_lanes.play(20)
    assert cost.turns == 20 * (5 + 4)  # two sessions, of which the first asks
    assert 0 < cost.turn_ms < 100
