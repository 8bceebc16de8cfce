"""Judges that give rewards, and judges and tools that are async."""

import asyncio
import math
from dataclasses import replace

import pytest

from agile_ray.agent.lane import Lane
from agile_ray.evaluation.score import score
from agile_ray.record.ledger import _check_rewards
from agile_ray.record.parquet.columns import lines_of, session_of
from agile_ray.record.store import Earned
from agile_ray.segments import cut
from agile_ray.types import Ending
from tests.fakes.worlds import ASKS, END, OPENING, PREDICTS, Says, SmallStream, question, rules

WET = question(0, "is it waterproof ?", answer="no")
TOLD_OFF = (*OPENING, "[SeekAdvice]", "[PredictAnswer] yes [SubmitAnswer] [ClearContext]")


class GradedStream(SmallStream):
    reward_range = (-1.0, 1.0)

    def __init__(self, *questions, gives):
        super().__init__(*questions)
        self.gives = gives

    async def search(self, query):
        await asyncio.sleep(0)
        return super().search(query)

    async def judge(self, question, submission):
        await asyncio.sleep(0)
        return 1.0 if submission.advised else self.gives


def play(turns, gives):
    return asyncio.run(Lane(GradedStream(WET, gives=gives), rules()).play(Says(*turns)))


@pytest.mark.parametrize(
    ("gives", "reward", "correct"),
    [(1.0, 1000, True), (0.25, 250, False), (0.0, 0, False), (-0.5, -500, False), (True, 1000, True)],
)
def test_a_reward_lands_on_the_submit_token_and_the_highest_is_right(gives, reward, correct):
    session = play(PREDICTS, gives)
    assert (session.ending, session.reward, session.correct) == (Ending.DONE, reward, correct)
    assert session.turns[-1].rewards.tolist() == [0, 0, pytest.approx(reward / 1000), 0]


@pytest.mark.parametrize(
    ("turns", "gives"), [(PREDICTS, 0.3), (ASKS, 0.0), (TOLD_OFF, -0.25), (TOLD_OFF, -0.3), (PREDICTS, -1.0)]
)
def test_the_ledger_balances_prices_and_rewards_of_either_sign(turns, gives):
    session = play(turns, gives)
    [segment] = cut(session)
    _check_rewards(Earned(session=session, rewards=segment.rewards.tolist(), trained=True), iteration=1)


def test_totals_are_of_rewards_and_accuracy_of_right_answers():
    sessions = [play(PREDICTS, gives) for gives in (1.0, 0.5, -0.5)]
    scored = score([replace(one, position=place) for place, one in enumerate(sessions)])
    assert scored.total_score == pytest.approx(1 / 3)
    assert scored.accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize("gives", [1.5, -1.01, math.nan, "right", None])
def test_a_reward_out_of_range_fails_the_session_and_says_why(gives):
    session = play(PREDICTS, gives)
    assert session.ending is Ending.FAILED
    assert "must return true, false or a number from -1 to 1, found" in (session.error or "")


def test_an_async_tool_is_awaited():
    session = play((*OPENING, f"[SearchProduct] SELECT all {END}", "[SubmitAnswer] [ClearContext]"), 0.5)
    assert (session.answer, session.reward) == ("p1 p2", 500)


def test_a_judge_without_a_range_gives_at_most_one():
    class Generous(SmallStream):
        def judge(self, question, submission):
            return 2.0

    session = asyncio.run(Lane(Generous(WET), rules()).play(Says(*PREDICTS)))
    assert "from 0 to 1, found 2.0" in (session.error or "")


@pytest.mark.parametrize("gives", [1.0, 0.25, -0.5])
def test_a_stored_session_keeps_its_reward_and_an_older_one_had_none(gives):
    session = play(PREDICTS, gives)
    [(_, line)] = lines_of(session)
    assert session_of(line).reward == session.reward
    del line["graded"]
    assert session_of(line).reward == 1000 * session.correct
