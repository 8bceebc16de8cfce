import asyncio
from dataclasses import replace

import numpy as np
import pytest

from agile_ray import credit, linked
from agile_ray.config import Credit
from agile_ray.segments import cut
from agile_ray.types import Scores
from tests.worlds import ASKS, PREDICTS, Says, lane, question

NO_LINKS = linked.link([], [], threshold=None)


def sessions():
    one = lane(*[question(i, "does it rust ?") for i in range(3)])
    played = [asyncio.run(one.play(Says(*turns))) for turns in (ASKS, PREDICTS, PREDICTS)]
    return [replace(played[0], stored_similar=1), played[1], played[2]]


def amounts(given, config):
    return credit.MODES[config.mode](credit.Evidence(sessions=given, past=(), links=NO_LINKS), config)[0].tolist()


def test_heuristic_is_beta_over_one_more_than_stored_for_writers_with_a_future():
    assert [s.later_similar for s in sessions()] == [2, 1, 0]
    config = Credit(mode="heuristic", beta=0.1)
    assert amounts(sessions(), config) == pytest.approx([0.05, 0.0, 0.0])
    lonely = [replace(s, later_similar=0) for s in sessions()]
    assert amounts(lonely, config) == [0.0, 0.0, 0.0]


def test_none_gives_nothing():
    assert amounts(sessions(), Credit(mode="none")) == [0.0, 0.0, 0.0]


def test_assign_gives_each_session_its_own_credit_whatever_the_order():
    played = sessions()
    segments = [segment for session in reversed(played) for segment in cut(session)]
    zeros = [np.zeros(segment.actions, np.float32) for segment in segments]
    scores = [Scores(**dict.fromkeys(Scores.__slots__, z)) for z in zeros]
    rows = credit.assign(played, segments, scores, Credit(mode="heuristic")).rows
    assert [(row.segment.position, row.credit) for row in rows] == [(2, 0.0), (1, 0.0), (0, pytest.approx(0.05))]
