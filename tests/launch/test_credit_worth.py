"""The worth of asks, compared with values worked out by hand and on played sessions."""

from dataclasses import replace

import numpy as np
import pytest

from agile_ray.config import Agent, Memory
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.scripted.references import Habits, reference
from agile_ray.segments import cut
from agile_ray.types import TokenScores, TrainingRow
from envs.shop import Shop
from launch.studies.credit_worth import CreditedSession, credited, lines, worth
from tests.fakes.streams import play_streams, script_rules

ASK = CreditedSession(guess_probability=0.6, later=2, known=False, asked=True, reward=0.5, credit=0.2)
GUESS = replace(ASK, asked=False, reward=1.0, credit=0.0)
KNOWN = replace(ASK, known=True, asked=False, reward=1.0, credit=0.0)


@pytest.mark.parametrize(
    ("share", "later", "expected"),
    [
        (0.0, 0, 0.0),
        (0.0, 3, 3 * (1 - 0.6)),  # no session asks again: every later session would have guessed
        (1.0, 3, 1 - (1 - 0.5)),  # the next session would have asked: only its price is saved
        (0.5, 2, (1 + 0.5) * (1 - (0.5 * 0.5 + 0.5 * 0.6))),
    ],
)
def test_an_ask_is_worth_what_later_sessions_gain_until_one_asks(share, later, expected):
    assert worth(replace(ASK, later=later), share=share, known_reward=1.0, price=0.5) == pytest.approx(expected)


def test_a_line_covers_sessions_in_a_range_of_g_whose_answer_memory_lacked():
    easy = replace(GUESS, guess_probability=0.9)
    (hard_line, easy_line) = lines([ASK, GUESS, KNOWN, easy, replace(easy, known=True)], price=0.5)
    assert (hard_line.guess_range, hard_line.sessions, hard_line.asks, hard_line.asked_share) == ((0.5, 0.7), 2, 1, 0.5)
    assert hard_line.credit == 0.2
    assert hard_line.worth == pytest.approx((1 + 0.5) * (1 - (0.5 * 0.5 + 0.5 * 0.6)))
    assert (easy_line.sessions, easy_line.asks, easy_line.credit, easy_line.worth) == (1, 0, None, None)


def test_sessions_are_read_from_a_runs_folder(tmp_path):
    shop = Shop(seed=0)
    rules = script_rules(shop, agent=Agent(), memory=Memory(threshold=0.65))
    oracle = reference("oracle", shop, Habits())
    sessions = play_streams(oracle, shop, split="train", indices=range(2), rules=rules, price=300)
    rows = [
        TrainingRow(
            segment=segment,
            scores=TokenScores(**dict.fromkeys(TokenScores.__slots__, np.zeros(segment.actions, np.float32))),
            credit=0.25 if segment.last else 0.0,
            credit_baseline=0.0,
            decided_after=segment.actions,
            wrote=bool(session.writes),
        )
        for session in sessions
        for segment in cut(session)
    ]
    for iteration in (1, 2):
        store.write(RunFolder(tmp_path), iteration, sessions, rows)
    questions = [question for index in range(2) for question in shop.stream(split="train", index=index).questions]
    asked = [session.asks > 0 for session in sessions]
    found = credited(RunFolder(tmp_path), seed=0, last=1)
    assert len(found) == sum(not question.query for question in questions)
    assert [one.asked for one in found] == [
        did for did, question in zip(asked, questions, strict=True) if not question.query
    ]
    assert {one.credit for one in found} == {0.25}
    assert not any(one.known and one.asked for one in found)
    assert sum(one.later for one in found) == sum(
        question.item == later.item
        for stream in (questions[:48], questions[48:])
        for position, question in enumerate(stream)
        for later in stream[position + 1 :]
        if not question.query
    )
    assert len(credited(RunFolder(tmp_path), seed=0, last=2)) == 2 * len(found)
