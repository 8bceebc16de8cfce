"""Scripted policies and the optimum: played through the real executor, memory, expert and SQL tool."""

from itertools import product
from random import Random

import pytest

from agile_ray.agent.environment import Question
from agile_ray.config import Agent, Memory
from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import plays
from agile_ray.scripted.optimum import best_first, optimum, worth_asking
from agile_ray.scripted.references import REFERENCES, Habits, play_sessions, reference
from agile_ray.types import Ending, Session
from envs.shop import Shop
from tests.fakes.streams import play_streams, script_rules

SHOP = Shop(seed=0)
MEMORY = Memory(threshold=0.65)
AGENT = Agent()
STREAMS = range(12)


def play(name: str, *, price: int = 300, split: str = "validation", agent: Agent = AGENT, **habits) -> list[Session]:
    rules = script_rules(SHOP, agent=agent, memory=MEMORY)
    policy = reference(name, SHOP, Habits(**habits))
    return play_streams(policy, SHOP, split=split, indices=STREAMS, rules=rules, price=price)


def questions(split: str = "validation") -> list[tuple[Question, ...]]:
    return [SHOP.stream(split=split, index=index).questions for index in STREAMS]


def flat(streams: list[tuple[Question, ...]]) -> list[Question]:
    return [question for stream in streams for question in stream]


def asked_share(sessions: list[Session]) -> float:
    return sum(session.asks for session in sessions) / len(sessions)


def answered_right(streams: list[tuple[Question, ...]], sessions: list[Session]) -> list[bool]:
    """Whether each session must be right, given which sessions asked: a slow, obvious simulation of memory."""
    right = []
    played = iter(sessions)
    for stream in streams:
        known: set[str] = set()
        for question in stream:
            asks = bool(next(played).asks)
            right.append(asks or question.item in known or bool(question.query) or question.guess == question.answer)
            known |= {question.item} if asks else set()
    return right


@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "yes_gold_sql"])
def test_every_policy_is_right_exactly_where_advice_memory_the_tool_or_the_guess_is(name: str):
    sessions = play(name, first=20)
    assert all(session.ending is Ending.DONE and not session.remarks for session in sessions)
    assert [session.correct for session in sessions] == answered_right(questions(), sessions)


def test_playing_twice_gives_the_same_sessions():
    one, two = play("teacher"), play("teacher")
    assert [(s.correct, s.asks, s.writes) for s in one] == [(s.correct, s.asks, s.writes) for s in two]
    for first, second in zip(one, two, strict=True):
        assert [turn.completion_ids.tolist() for turn in first.turns] == [
            turn.completion_ids.tolist() for turn in second.turns
        ]


def test_each_policy_asks_where_its_name_says():
    everything = flat(questions())
    assert all(session.asks == 1 for session in play("always_ask"))
    assert not any(session.asks for session in play("never_ask"))
    assert [bool(s.asks) for s in play("ask_unless_search")] == [not question.query for question in everything]
    assert [bool(s.asks) for s in play("non_adaptive", first=7)] == [s.position < 7 for s in play("never_ask")]
    assert asked_share(play("random", asked_share=0.4)) == pytest.approx(0.4, abs=0.06)


def test_random_choices_depend_on_the_stream_and_not_on_the_order_of_play():
    rules = script_rules(SHOP, agent=Agent(), memory=MEMORY)
    policy = reference("teacher", SHOP, Habits(seed=5))
    there = play_streams(policy, SHOP, split="train", indices=[0, 1], rules=rules, price=300)
    back = play_streams(policy, SHOP, split="train", indices=[1, 0], rules=rules, price=300)
    asks = {(session.stream, session.position): session.asks for session in there}
    assert asks == {(session.stream, session.position): session.asks for session in back}


def test_an_evaluation_may_stop_within_a_stream():
    rules = script_rules(SHOP, agent=AGENT, memory=MEMORY)
    chosen = plays(SHOP, split="validation", sessions=60)
    policy = reference("teacher", SHOP, Habits())
    sessions = play_sessions(policy, SHOP, split="validation", plays=chosen, rules=rules)
    whole = play("teacher")
    assert [(s.stream, s.position, s.asks) for s in sessions] == [(s.stream, s.position, s.asks) for s in whole[:60]]


@pytest.mark.parametrize("price", [100, 300, 500])
def test_judgement_asks_only_where_advice_pays_off_within_the_session(price: int):
    for question, session in zip(flat(questions()), play("teacher", price=price, asking="judgement"), strict=True):
        assert not session.asks or (not question.query and 1000 * (1 - question.guess_probability) > price)


def test_yes_gold_sql_says_yes_and_runs_the_gold_query():
    sessions = play("yes_gold_sql")
    for question, session in zip(flat(questions()), sessions, strict=True):
        assert session.asks == 0
        assert session.correct == (bool(question.query) or question.answer == "yes")
        assert question.query or session.answer == "yes"


def test_memory_is_written_only_after_advice_and_knowledge_only_where_there_is_some():
    for question, session in zip(flat(questions()), play("teacher"), strict=True):
        kinds = {use.kind for use in session.writes}
        assert session.asks or not kinds
        assert ("knowledge" in kinds) <= bool(question.knowledge)


def test_text_too_long_for_a_turn_is_shortened_and_no_function_is_lost():
    sessions = play("always_ask", agent=Agent(turn_tokens=5))
    assert all(session.ending is Ending.DONE and session.correct for session in sessions)


def test_forced_functions_are_not_written_again():
    sessions = play("teacher", agent=Agent(forced=True))
    assert all(session.ending is Ending.DONE and not session.remarks for session in sessions)
    assert [session.asks for session in sessions] == [session.asks for session in play("teacher")]


def test_an_unknown_policy_is_refused_with_a_list_of_known_ones():
    with pytest.raises(ConfigError, match="oracle.*found orakel"):
        reference("orakel", SHOP, Habits())


def small_stream(random: Random, *, length: int) -> tuple[Question, ...]:
    """A stream of few items, some of which the tool answers."""
    items = [(f"item {k}", random.choice([0.1, 0.3, 0.5, 0.62, 0.8, 0.95]), random.random() < 0.2) for k in range(3)]
    stream = []
    for position in range(length):
        item, probability, searched = random.choice(items)
        stream.append(
            Question(
                id=str(position),
                product="p1",
                kind="fact",
                topic="fact",
                text=item,
                shown=item,
                item=item,
                answer="yes",
                advice="yes",
                knowledge="",
                query="SELECT" if searched else "",
                guess="yes",
                guess_probability=probability,
            )
        )
    return tuple(stream)


def expected_total(stream: tuple[Question, ...], asks: tuple[bool, ...], price: int, reliability: float = 1.0) -> float:
    """Expected own rewards of one pattern of asks; the reader answers the other questions."""
    known: set[str] = set()
    total = 0.0
    for question, ask in zip(stream, asks, strict=True):
        if ask:
            total += reliability - price / 1000
        elif question.query:
            total += 1.0
        else:
            total += reliability if question.item in known else question.guess_probability
        known |= {question.item} if ask else set()
    return total


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_is_the_best_of_all_ask_patterns(seed: int):
    """Outcomes of guesses are not observed and items are independent, so no adaptive plan beats a fixed pattern."""
    random = Random(seed)
    stream = small_stream(random, length=8)
    price = random.choice([50, 150, 290, 520, 810, 1000])
    patterns = list(product((False, True), repeat=len(stream)))
    for reliability in (1.0, 0.9, 0.6):
        best = max(expected_total(stream, asks, price, reliability) for asks in patterns)
        found = optimum([stream], price=price, reliability=reliability)
        assert found.total * len(stream) == pytest.approx(best)


def test_the_gain_of_advice_counts_every_later_use():
    stream = small_stream(Random(1), length=8)
    question = next(question for question in stream if not question.query)
    gain = round(1000 * (1 - question.guess_probability))
    assert worth_asking(question, uses=1, price=gain - 1)
    assert not worth_asking(question, uses=1, price=gain + 1)
    assert worth_asking(question, uses=3, price=3 * gain - 1)
    assert not worth_asking(question, uses=3, price=3 * gain + 1)


@pytest.mark.parametrize("price", [100, 300, 500])
def test_playing_the_oracle_reaches_the_computed_optimum(price: int):
    streams = questions()
    sessions = play("oracle", price=price)
    ideal = optimum(streams, price=price)
    assert asked_share(sessions) == pytest.approx(ideal.asked_share)
    patterns = iter([bool(session.asks) for session in sessions])
    total = sum(expected_total(stream, tuple(next(patterns) for _ in stream), price) for stream in streams)
    assert total / len(sessions) == pytest.approx(ideal.total)


def test_the_oracle_asks_an_item_at_first_sight_or_never():
    sessions = iter(play("oracle"))
    for stream in questions():
        seen: set[str] = set()
        for question in stream:
            assert not next(sessions).asks or question.item not in seen
            seen.add(question.item)


@pytest.mark.parametrize("reliability", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("price", [10, 100, 300, 500])
def test_the_best_number_of_first_asks_is_the_best_of_all(price: int, reliability: float):
    streams = questions("train")
    length = len(streams[0])
    totals = [
        sum(
            expected_total(stream, tuple(position < k for position in range(length)), price, reliability)
            for stream in streams
        )
        for k in range(length + 1)
    ]
    prices = [price] * len(streams)
    assert totals[best_first(streams, prices=prices, reliability=reliability)] == pytest.approx(max(totals))


def test_gold_advice_is_written_and_answered_word_for_word():
    """With an expert who is always right, the reader writes the gold knowledge, and answers from memory are gold."""
    rules = script_rules(SHOP, agent=AGENT, memory=MEMORY)
    policy = reference("oracle", SHOP, Habits())
    played = play_streams(policy, SHOP, split="validation", indices=STREAMS, rules=rules, price=300)
    for question, session in zip(flat(questions()), played, strict=True):
        said = [rules.tokenizer.decode(turn.completion_ids.tolist()) for turn in session.turns]
        if session.asks:
            learned = question.knowledge or "no information"
            assert said[-1] == f"[Reflection] {learned}[UpdateMemory][SubmitAnswer][ClearContext]"
        elif session.hindsight.known:
            assert said[-1] == f"[PredictAnswer] {question.answer}[SubmitAnswer][ClearContext]"
