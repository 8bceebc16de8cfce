"""Scripted policies with an expert that is sometimes wrong."""

import asyncio
from functools import cache
from statistics import mean

import pytest

from agile_ray.agent.lane import Lane
from agile_ray.agent.memory import KNOWLEDGE, QA
from agile_ray.config import Agent, Memory
from agile_ray.evaluation.plays import Play
from agile_ray.scripted.optimum import optimum
from agile_ray.scripted.references import Habits, play_sessions, reference
from envs.recurring import Recurring
from envs.shop import Shop
from tests.fakes.fallible import Fallible
from tests.fakes.streams import script_rules

WORLDS = {"shop": Shop(seed=0), "recurring": Recurring(seed=0)}
STREAMS = 6
SPLIT = "validation"


def rules(world, expert, *, price=300):
    return script_rules(world, agent=Agent(), memory=Memory(threshold=0.65), expert=expert, price=price)


@cache
def play(name, world, *, wrong, price, sessions=None):
    """Sessions of a policy, each with its question; `sessions` cuts every stream."""
    listed = [world.stream(split=SPLIT, index=index).questions[:sessions] for index in range(STREAMS)]
    chosen = [Play(index=index, sessions=len(questions)) for index, questions in enumerate(listed)]
    policy = reference(name, world, Habits(first=12, asked_share=0.4))
    by = rules(world, Fallible(wrong), price=price)
    played = play_sessions(policy, world, split=SPLIT, plays=chosen, rules=by)
    return list(zip([question for questions in listed for question in questions], played, strict=True))


def expected_total(played, price, reliability):
    """Mean own reward in expectation over guesses and advice."""
    return mean(
        reliability - session.asks * price / 1000
        if session.asks or session.hindsight.known
        else 1.0
        if question.query
        else question.guess_probability
        for question, session in played
    )


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("wrong", [0.1, 0.3])
def test_who_always_asks_is_right_as_often_as_the_expert(world, wrong):
    expert = Fallible(wrong)
    played = play("always_ask", world, wrong=wrong, price=300)
    assert all(session.correct == expert.is_right(question, stream=session.stream) for question, session in played)
    assert mean(session.correct for _, session in played) == pytest.approx(1 - wrong, abs=0.08)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize(
    ("wrong", "price"), [(0.3, 100), *(pytest.param(*one, marks=pytest.mark.long) for one in ((0.1, 300), (0.3, 550)))]
)
def test_the_oracle_asks_once_where_all_uses_of_unsure_advice_are_worth_its_price(world, wrong, price):
    played = play("oracle", world, wrong=wrong, price=price)
    known = set()
    for index, (question, session) in enumerate(played):
        later = [other for other, its in played[index:] if its.stream == session.stream]
        uses = sum(other.item == question.item for other in later)
        worth = not question.query and uses * (1 - wrong - question.guess_probability) > price / 1000
        assert bool(session.asks) == (worth and (session.stream, question.item) not in known)
        if session.asks:
            known.add((session.stream, question.item))


@pytest.mark.parametrize(
    "name",
    [
        "oracle",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("ask_unless_search", "non_adaptive", "random")),
    ],
)
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_wrong_advice_stays_wrong_in_memory(world, name):
    """Answers from memory are those of the remembered advice: right where it was, wrong where it was not."""
    expert = Fallible(0.3)
    told = {}
    for question, session in play(name, world, wrong=0.3, price=300):
        item = session.stream, question.item
        right = expert.is_right(question, stream=session.stream)
        if session.asks:
            told.setdefault(item, set()).add(right)
        elif item in told:
            assert session.correct in told[item]
        else:
            assert session.correct == (bool(question.query) or question.guess == question.answer)


def test_after_wrong_advice_the_question_is_remembered_with_it_and_no_gold_knowledge():
    expert, world, right = Fallible(0.4), WORLDS["shop"], []
    lane = Lane(world.stream(split=SPLIT, index=0), rules(world, expert))
    policy = reference("always_ask", world, Habits())
    for _ in lane.stream.questions:
        asyncio.run(lane.play(policy))
    for entry in lane.memory.change().entries:
        question = lane.stream.questions[entry.writer]
        right.append(expert.is_right(question, stream=lane.stream.id))
        learned = {QA: f"{question.text} {question.answer}", KNOWLEDGE: question.knowledge}[entry.kind]
        assert entry.text == (learned if right[-1] else f"{question.text} not {question.answer}")
    assert {*right} == {True, False}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize(
    ("wrong", "price"),
    [(0.1, 300), *(pytest.param(*one, marks=pytest.mark.long) for one in ((0.1, 100), (0.3, 100), (0.3, 550)))],
)
def test_the_oracle_is_the_best_policy_and_reaches_the_computed_optimum(world, wrong, price):
    names = ("oracle", "always_ask", "never_ask", "ask_unless_search", "non_adaptive", "random")
    totals = {name: expected_total(play(name, world, wrong=wrong, price=price), price, 1 - wrong) for name in names}
    assert max(totals, key=lambda name: totals[name]) == "oracle"
    listed = [world.stream(split=SPLIT, index=index).questions for index in range(STREAMS)]
    assert totals["oracle"] == pytest.approx(optimum(listed, price=price, reliability=1 - wrong).total)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("wrong", [0.5, 0.8])
def test_the_oracle_never_asks_an_expert_who_is_no_better_than_a_guess(world, wrong):
    for question, session in play("oracle", world, wrong=wrong, price=0):
        assert not session.asks or 1 - wrong > question.guess_probability
    assert not any(session.asks for _, session in play("oracle", WORLDS["recurring"], wrong=wrong, price=0))


@pytest.mark.parametrize("wrong", [0.0, 0.2])
@pytest.mark.parametrize("sessions", [5, 11, 17])
def test_the_oracle_counts_no_use_after_the_last_session_that_is_played(sessions, wrong):
    world, price = WORLDS["recurring"], 600  # of three questions on an item; one use alone never pays
    played = play("oracle", world, wrong=wrong, price=price, sessions=sessions)
    expected = optimum(
        [world.stream(split=SPLIT, index=index).questions[:sessions] for index in range(STREAMS)],
        price=price,
        reliability=1 - wrong,
    )
    assert mean(session.asks for _, session in played) == pytest.approx(expected.asked_share)
