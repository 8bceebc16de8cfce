"""The teacher of imitation: where it asks, what it answers unaided, what memory holds after its warm pass."""

from collections import Counter
from dataclasses import replace
from functools import cache
from math import sqrt

import pytest

from agile_ray.agent.environment import Environment, Question, Stream
from agile_ray.agent.policy import Policy
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent, Imitation, Memory
from agile_ray.scripted.references import Habits, reference
from agile_ray.scripted.teacher import collector, teacher, unaided
from agile_ray.types import Ending, Session
from envs.recurring import Recurring
from envs.shop import Shop, ShopStream
from tests.fakes.streams import play_streams, script_rules

SHOP, RECURRING = Shop(seed=0), Recurring(seed=0)
TOKENIZER = WordTokenizer()
STREAMS = 8


def play(world: Environment, *, streams: int = STREAMS, seed: int = 0, **settings: object) -> list[Session]:
    policy = teacher(Imitation.model_validate(settings), world, seed=seed)
    return play_policy(policy, world, streams=streams)


def play_policy(policy: Policy, world: Environment, *, streams: int = STREAMS) -> list[Session]:
    rules = script_rules(world, agent=Agent(), memory=Memory(threshold=0.65))
    rules = replace(rules, tokenizer=TOKENIZER)  # one for all, because it learns words as it encodes them
    return play_streams(policy, world, split="train", indices=range(streams), rules=rules, price=300)


def sorted_out(world: Environment, sessions: list[Session]) -> list[tuple[str, Question, Session]]:
    """Each session with its question, and whether that is a search, known from an earlier ask, or new."""
    known: dict[str, set[str]] = {}
    found = []
    for session in sessions:
        question = stream_of(world, session).questions[session.position]
        remembered = known.setdefault(session.stream, set())
        sort = "search" if question.query else "known" if question.item in remembered else "new"
        found.append((sort, question, session))
        remembered |= {question.item} if session.asks else set()
    return found


def stream_of(world: Environment, session: Session) -> Stream:
    return _stream(world, int(session.stream.rpartition("/")[2]))


@cache
def _stream(world: Environment, index: int) -> Stream:
    return world.stream(split="train", index=index)


def written(session: Session) -> str:
    return TOKENIZER.decode([int(token) for turn in session.turns for token in turn.completion_ids])


@pytest.mark.parametrize(("world", "share"), [(SHOP, 0.25), (RECURRING, 0.25), (RECURRING, 0.6)])
def test_the_random_teacher_asks_as_often_whatever_memory_and_tool_know(world: Environment, share: float):
    sessions = play(world, streams=24, seed=3, asked_share=share)
    asks: dict[str, list[int]] = {}
    for sort, _, session in sorted_out(world, sessions):
        asks.setdefault(sort, []).append(session.asks)
    assert asks.keys() == ({"search", "known", "new"} if world is SHOP else {"known", "new"})
    for sort, counts in {**asks, "all": [session.asks for session in sessions]}.items():
        four_deviations = 4 * sqrt(share * (1 - share) / len(counts))
        assert len(counts) > 100, sort
        assert abs(sum(counts) / len(counts) - share) < four_deviations, sort


def test_advice_on_a_search_is_submitted_and_remembered_without_knowledge():
    sessions = [session for sort, _, session in sorted_out(SHOP, play(SHOP, asked_share=1.0)) if sort == "search"]
    assert len(sessions) > 50
    for session in sessions:
        assert session.correct
        assert session.ending is Ending.DONE
        assert not session.remarks
        assert [use.kind for use in session.writes] == ["qa"]
        assert "[Reflection] no information[UpdateMemory]" in written(session)


def test_asking_for_a_known_answer_again_writes_nothing_new():
    again = [session for sort, _, session in sorted_out(RECURRING, play(RECURRING, asked_share=1.0)) if sort == "known"]
    assert len(again) == STREAMS * 16  # two of three questions on each of eight items
    assert all(session.correct and session.reads and not session.writes for session in again)


def test_unaided_gold_answers_are_drawn_as_the_environment_draws_them():
    """So a policy that learns them learns the distribution, and its likeliest answer is the best guess."""
    taught: dict[tuple[str, str], list[Question]] = {}
    for sort, question, session in sorted_out(SHOP, play(SHOP, streams=24, asked_share=0.0)):
        if sort != "search":
            assert session.answer == question.answer
            assert session.correct
            taught.setdefault((session.stream, question.item), []).append(question)
    surplus = variance = 0.0
    for alike in taught.values():  # questions on one item have one answer
        guess = alike[0].guess_probability
        surplus += len(alike) * ((alike[0].answer == alike[0].guess) - guess)
        variance += len(alike) ** 2 * guess * (1 - guess)
    assert abs(surplus) < 4 * sqrt(variance) < 0.2 * sum(map(len, taught.values()))


@pytest.mark.parametrize(("world", "asking"), [(SHOP, "random"), (RECURRING, "random"), (SHOP, "judgement")])
def test_the_kind_of_answer_changes_only_unaided_sessions(world: Environment, asking: str):
    gold, guess = (play(world, asking=asking, answers=answers) for answers in ("gold", "guess"))
    alone = 0
    for one, other in zip(gold, guess, strict=True):
        questions = stream_of(world, one).questions
        question = questions[one.position]
        assert unaided(one, questions) == unaided(other, questions)
        if unaided(one, questions):
            assert (one.answer, other.answer) == (question.answer, question.guess)
            alone += 1
        else:
            assert written(one) == written(other)
        assert (one.asks, one.reads, one.writes) == (other.asks, other.reads, other.writes)
    assert alone > 100


def test_with_guesses_the_teacher_plays_like_the_reference_policy_of_its_name():
    sessions = play_policy(reference("teacher", SHOP, Habits(seed=7, asked_share=0.25)), SHOP)
    assert [written(session) for session in play(SHOP, seed=7, answers="guess")] == list(map(written, sessions))


def test_after_a_refused_query_no_product_ids_are_made_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ShopStream, "search", lambda stream, query: RECURRING.stream(split="train", index=0).search(""))
    searches = [session for sort, _, session in sorted_out(SHOP, play(SHOP, asked_share=0.0)) if sort == "search"]
    assert searches
    assert all(session.answer == "none" for session in searches)
    assert not any(unaided(session, stream_of(SHOP, session).questions) for session in searches)


def test_the_warm_pass_buys_each_fact_once_and_no_search():
    sessions = play_policy(collector(SHOP), SHOP)
    bought = Counter(sort for sort, _, session in sorted_out(SHOP, sessions) if session.asks)
    assert bought["search"] == 0 < bought["new"]
    assert bought["new"] == sum(sort == "new" for sort, _, _ in sorted_out(SHOP, sessions))
