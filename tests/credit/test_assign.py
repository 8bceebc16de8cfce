import asyncio

import numpy as np
import pytest

from agile_ray.agent.functions import Function
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Credit
from agile_ray.credit import assign, baseline, linked
from agile_ray.errors import ContractError
from agile_ray.segments import cut
from agile_ray.types import Ending, TokenScores
from tests.fakes.worlds import ASKS, PREDICTS, Says, changed, lane, question

NO_LINKS = linked.link([], [], threshold=None)


def sessions():
    one = lane(*[question(i, "does it rust ?") for i in range(3)])
    played = [asyncio.run(one.play(Says(*turns))) for turns in (ASKS, PREDICTS, PREDICTS)]
    return [changed(played[0], stored_similar=1), played[1], played[2]]


def amounts(given, config):
    return assign.MODES[config.mode](assign.Evidence(sessions=given, past=(), links=NO_LINKS), config)[0].tolist()


def test_heuristic_is_beta_over_one_more_than_stored_for_writers_with_a_future():
    assert [s.hindsight.later_similar for s in sessions()] == [2, 1, 0]
    config = Credit(mode="heuristic", beta=0.1)
    assert amounts(sessions(), config) == pytest.approx([0.05, 0.0, 0.0])
    lonely = [changed(s, later_similar=0) for s in sessions()]
    assert amounts(lonely, config) == [0.0, 0.0, 0.0]


def test_none_gives_nothing():
    assert amounts(sessions(), Credit(mode="none")) == [0.0, 0.0, 0.0]


def test_assign_gives_each_session_its_own_credit_whatever_the_order():
    played = sessions()
    segments = [segment for session in reversed(played) for segment in cut(session)]
    zeros = [np.zeros(segment.actions, np.float32) for segment in segments]
    scores = [TokenScores(**dict.fromkeys(TokenScores.__slots__, z)) for z in zeros]
    rows = assign.assign(played, segments, scores, Credit(mode="heuristic")).rows
    assert [(row.segment.position, row.credit) for row in rows] == [(2, 0.0), (1, 0.0), (0, pytest.approx(0.05))]


def test_segments_without_scores_are_refused():
    played = sessions()
    segments = [segment for session in played for segment in cut(session)]
    with pytest.raises(ContractError, match="every segment has its scores, got 0 for 3 segments"):
        assign.assign(played, segments, [], Credit(mode="heuristic"))


def test_credit_lands_where_it_is_settled_that_the_session_writes_and_nothing_is_expected_behind():
    tokenizer = WordTokenizer()
    played = sessions()[:2]
    segments = [segment for session in played for segment in cut(session)]
    zeros = [np.zeros(segment.actions, np.float32) for segment in segments]
    scores = [TokenScores(**dict.fromkeys(TokenScores.__slots__, z)) for z in zeros]
    rows = assign.assign(played, segments, scores, Credit(mode="heuristic")).rows
    landed = [row.segment.token_ids[row.segment.action_mask][row.decided_after - 1] for row in rows]
    assert [tokenizer.function_at(int(token)) for token in landed] == [Function.UPDATE_MEMORY, Function.SUBMIT_ANSWER]
    assert [row.credit > 0 for row in rows] == [True, False]


def test_a_session_of_two_segments_is_settled_in_one_of_them():
    session = changed(sessions()[0], decided_after=3)
    first, second = (changed(next(cut(session)), index=index, last=index == 1) for index in (0, 1))
    z = np.zeros(first.actions, np.float32)
    scores = [TokenScores(**dict.fromkeys(TokenScores.__slots__, z))] * 2
    for decided_after, expected in ((3, (3, 0)), (first.actions + 2, (first.actions, 2))):
        given = changed(session, decided_after=decided_after)
        rows = assign.assign([given], [first, second], scores, Credit(mode="heuristic")).rows
        assert tuple(row.decided_after for row in rows) == expected
        assert [row.credit > 0 for row in rows] == [decided_after == 3, decided_after != 3]


def test_what_was_expected_is_the_mean_of_sessions_that_found_memory_alike():
    one = sessions()[0]
    played = [
        changed(one, position=0, known=False),
        changed(one, position=1, known=False, writes=()),
        changed(one, position=2, known=True, writes=()),
        changed(one, position=3, topic="other"),
        changed(one, position=4, known=False, ending=Ending.FAILED, error="gone"),
    ]
    expected = baseline.usual(played, np.array([0.6, 0.0, 0.0, 0.4, 9.0]))
    assert expected.tolist() == pytest.approx([0.3, 0.3, 0.0, 0.4, 0.3])


def test_what_was_expected_hangs_on_what_is_left_of_the_stream_and_on_who_will_ask_again():
    one = sessions()[0]
    later = [(3 * place) % 7 % 4 for place in range(40)]
    played = [
        changed(one, position=place, stream_length=40, known=place % 2 == 1, later_similar=later[place])
        for place in range(40)
    ]
    left, share = np.array([[1 - place / 40, n / (n + 1)] for place, n in enumerate(later)]).T
    amounts = np.where(np.arange(40) % 2 == 0, 0.1 + 0.8 * left + 0.5 * share, 0.0)
    np.testing.assert_allclose(baseline.usual(played, amounts), amounts, atol=1e-12)
