import asyncio
from dataclasses import replace

import numpy as np
import pytest

from agile_ray import credit
from agile_ray.config import Credit
from agile_ray.segments import cut
from agile_ray.types import Scores
from tests.worlds import ASKS, PREDICTS, Says, lane, question


def sessions():
    one = lane(*[question(i, "does it rust ?") for i in range(3)])
    played = [asyncio.run(one.play(Says(*turns))) for turns in (ASKS, PREDICTS, PREDICTS)]
    return [replace(played[0], stored_similar=1), played[1], played[2]]


def test_heuristic_is_beta_over_one_more_than_stored_for_writers_with_a_future():
    assert [s.later_similar for s in sessions()] == [2, 1, 0]
    config = Credit(mode="heuristic", beta=0.1)
    assert credit.heuristic(sessions(), config).tolist() == pytest.approx([0.05, 0.0, 0.0])
    lonely = [replace(s, later_similar=0) for s in sessions()]
    assert credit.heuristic(lonely, config).tolist() == [0.0, 0.0, 0.0]


def test_none_gives_nothing():
    assert credit.none(sessions(), Credit(mode="none")).tolist() == [0.0, 0.0, 0.0]


def test_assign_gives_each_session_its_own_credit_whatever_the_order():
    played = sessions()
    segments = [segment for session in reversed(played) for segment in cut(session)]
    zeros = [np.zeros(segment.actions, np.float32) for segment in segments]
    scores = [Scores(logprobs=z, reference_logprobs=z, values=z) for z in zeros]
    rows = credit.assign(played, segments, scores, Credit(mode="heuristic"))
    assert [(row.segment.position, row.credit) for row in rows] == [(2, 0.0), (1, 0.0), (0, pytest.approx(0.05))]
