import asyncio

import pytest

from agile_ray.agent.environment import Question, Submission, judged
from envs.dataset.judges import JUDGES, within
from envs.one_stream import OneStream
from envs.wrappers.judged import Judged


def says(judge, gold, said):
    return JUDGES[judge](Question(id="q", text="?", answer=gold), said)


@pytest.mark.parametrize(
    ("judge", "gold", "right", "wrong"),
    [
        ("exact", "New York", ["new  york", "New York."], ["york", "new york city", ""]),
        ("set", "red, blue", ["blue,red", "Red; blue", "red, blue, red"], ["red", "red, blue, green", ""]),
        ("number", "12", ["12", "12.0", "about 12 kg", "1.2e1"], ["12.3", "1", "11 or 12", "twelve", ""]),
        ("number", "3.14", ["3.14", "3.1416", "3.144"], ["3.146", "3.1", "-3.14"]),
        ("number", "1,200", ["1200", "1,200 pieces"], ["1.2"]),
        ("number", "-2", ["-2", "-2.0"], ["2"]),
        ("number", "Lima", ["lima"], ["7", "oslo"]),
        ("regex", "(an? )?umbrella", ["umbrella", "An umbrella", "a umbrella"], ["umbrellas", "the umbrella", ""]),
        ("regex", "a.*z", ["abc\nz", "a.*z"], ["b", "az z!"]),
    ],
)
def test_a_judge_takes_what_it_should_and_nothing_else(judge, gold, right, wrong):
    assert {said: bool(says(judge, gold, said)) for said in (*right, *wrong)} == (
        dict.fromkeys(right, True) | dict.fromkeys(wrong, False)
    )


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("gold", ["a", "a, b", "1.50", "no [brackets"])
def test_what_equals_the_answer_is_right_for_every_judge(judge, gold):
    if judge == "regex" and "[" in gold:
        pytest.skip("no regular expression")
    assert says(judge, gold, gold)


def test_a_tolerance_is_in_units_of_the_answer():
    ask = Question(id="q", text="?", answer="10")
    assert [bool(within(0.5)(ask, said)) for said in ("10.5", "9.5", "10.6")] == [True, True, False]


async def half(question, said):
    """Half a reward for the first letter."""
    await asyncio.sleep(0)
    return 1.0 if said == question.answer else 0.5 if said[:1] == question.answer[:1] else -0.5


half.reward_range = (-0.5, 1.0)


def stream(judge):
    asked = [Question(id="q", text="?", answer="oslo")]
    return Judged(OneStream("x", splits={"test": asked}, judge=lambda *_: True), judge).stream(split="test", index=0)


@pytest.mark.parametrize(("said", "earned"), [("oslo", 1.0), ("ob", 0.5), ("lima", -0.5)])
def test_an_async_judge_takes_the_place_of_the_environments_own_with_its_range(said, earned):
    one = stream(half)
    assert one.reward_range == (-0.5, 1.0)
    assert asyncio.run(judged(one, one.questions[0], Submission(text=said, rows=None))) == earned


def test_the_experts_own_answer_is_right_whatever_the_judge_says():
    one = stream(lambda *_: 0.0)
    assert asyncio.run(judged(one, one.questions[0], Submission(text="oslo", rows=None, advised=True))) == 1.0
