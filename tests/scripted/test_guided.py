"""A script decides when to ask, and another policy answers; functions that the agent may not use."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, Prompt
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent, Env, Imitation, Memory
from agile_ray.errors import ConfigError
from agile_ray.scripted.demonstrations import lessons
from agile_ray.scripted.guided import Guide, grow
from agile_ray.scripted.references import Habits, reference
from agile_ray.types import Ending
from envs.shop import Shop
from rollout.rules import build_rules
from tests.fakes.streams import play_streams, script_rules
from tests.fakes.worlds import completion

SHOP = Shop(seed=0)
MEMORY = Memory(threshold=0.65)
TOKENIZER = WordTokenizer()


def rules(*bar: str):
    by = script_rules(SHOP, agent=Agent.model_validate({"bar": bar}), memory=MEMORY)
    return replace(by, tokenizer=TOKENIZER)


class Answers:
    """Goes on after [SearchProduct] with the gold query, or a bad one and then asks; says yes elsewhere."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.breaks = breaks
        self.begun: list[Function | None] = []

    async def write(self, view: Prompt) -> Completion:
        last = TOKENIZER.function_at(view.context_ids[-1])
        self.begun.append(last)
        question = view.stream.questions[view.position]
        if last is Function.SEARCH_PRODUCT:
            query = "SELECT nothing" if self.breaks else question.query
            return completion(f"{query} <end>", TOKENIZER, version=3)
        if last is Function.PREDICT_ANSWER:
            return completion("yes [SubmitAnswer] [ClearContext]", TOKENIZER, version=3)
        return completion("[SeekAdvice]" if self.breaks else "[SubmitAnswer] [ClearContext]", TOKENIZER, version=3)


def play(guide: Guide, other: Answers, *, by=None, index: int = 0):
    async def played():
        here = by or rules()
        lane = Lane(SHOP.stream(split="test", index=index), here)
        measured, policy = guide.measured(lane, here), guide.policy(SHOP, other)
        sessions = []
        for _ in lane.stream.questions:
            measured.memory, measured.position = lane.memory, lane.position
            sessions.append(await measured.play(policy))
            await grow(lane, measured, SHOP)
        return lane.stream.questions, sessions, lane

    return asyncio.run(played())


def test_the_script_asks_and_the_other_policy_searches():
    other = Answers()
    questions, sessions, _ = play(Guide(name="ask_unless_own_search"), other)
    for question, session in zip(questions, sessions, strict=True):
        assert session.ending is Ending.DONE
        assert session.correct
        assert bool(session.asks) == (not question.query)
    searches = sum(bool(question.query) for question in questions)
    assert other.begun.count(Function.SEARCH_PRODUCT) == searches > 0
    assert Function.PREDICT_ANSWER not in other.begun


def test_the_scripts_token_opens_the_turn_that_the_other_policy_writes():
    questions, sessions, _ = play(Guide(name="ask_unless_own_search"), Answers())
    session = next(one for question, one in zip(questions, sessions, strict=True) if question.query)
    turn = session.turns[2]
    assert TOKENIZER.function_at(int(turn.completion_ids[0])) is Function.SEARCH_PRODUCT
    assert turn.completion_ids[-1] == TOKENIZER.eos_id
    assert turn.logprobs.tolist() == [0.0] + [-0.5] * (len(turn.logprobs) - 1)
    assert set(turn.versions.tolist()) == {3}
    np.testing.assert_array_equal(session.turns[3].prompt_ids[: len(turn.prompt_ids)], turn.prompt_ids)


def test_own_answers_read_the_memory_of_always_asking_and_may_not_ask():
    other = Answers(breaks=True)
    questions, sessions, lane = play(Guide(name="own_answer"), other)
    assert not any(session.asks for session in sessions)
    refused = [session for session in sessions if "refused" in session.remarks]
    assert len(refused) == sum(bool(question.query) for question in questions)  # it wanted to ask after each bad query
    asked = play_streams(
        reference("always_ask", SHOP, Habits()), SHOP, split="test", indices=[0], rules=rules(), price=300
    )
    assert [session.reads for session in sessions] == [session.reads for session in asked]
    assert set(lane.memory.writers) == {session.position for session in asked if session.writes}
    assert [session.hindsight.known for session in sessions] == [session.hindsight.known for session in asked]


def test_own_answers_after_a_number_of_first_asks():
    _, sessions, _ = play(Guide(name="own_non_adaptive", first=7), Answers())
    assert [bool(session.asks) for session in sessions] == [True] * 7 + [False] * (len(sessions) - 7)


@pytest.mark.parametrize("bar", ["RetrieveMemory", "SearchProduct", "SeekAdvice", "Reflection", "UpdateMemory"])
@pytest.mark.parametrize("name", ["always_ask", "ask_unless_search", "oracle", "never_ask"])
def test_scripts_leave_out_what_is_barred_and_are_refused_nothing(bar: str, name: str):
    sessions = play_streams(
        reference(name, SHOP, Habits()), SHOP, split="test", indices=[0, 1], rules=rules(bar), price=300
    )
    written = {int(token) for session in sessions for turn in session.turns for token in turn.completion_ids}
    assert TOKENIZER.function_id(Function(f"[{bar}]")) not in written
    assert all(session.ending is Ending.DONE and not session.remarks for session in sessions)
    assert bar != "SeekAdvice" or not any(session.asks for session in sessions)
    assert bar != "UpdateMemory" or not any(session.writes or session.reads for session in sessions)
    assert bar != "RetrieveMemory" or not any(session.reads for session in sessions)
    assert bar != "Reflection" or {use.kind for session in sessions for use in session.writes} <= {"qa"}
    if bar == "SearchProduct" and name in ("always_ask", "ask_unless_search"):
        assert all(session.asks for session in sessions)  # no question is left for the tool


def test_the_oracle_without_memory_counts_one_use_of_advice():
    sessions = play_streams(
        reference("oracle", SHOP, Habits()), SHOP, split="test", indices=[0, 1], rules=rules("UpdateMemory"), price=300
    )
    for session in sessions:
        question = SHOP.stream(split="test", index=int(session.stream.rpartition("/")[2])).questions[session.position]
        assert bool(session.asks) == (not question.query and question.guess_probability < 0.7)


def test_a_barred_call_of_the_policy_is_refused_and_the_session_goes_on():
    lane = Lane(SHOP.stream(split="test", index=0), rules("SeekAdvice"))

    class Insists:
        turns = ["[GetQuestion]", "[SeekAdvice]", "[PredictAnswer] yes [SubmitAnswer] [ClearContext]"]

        async def write(self, view):
            return completion(self.turns.pop(0), view.tokenizer)

    session = asyncio.run(lane.play(Insists()))
    assert (session.ending, session.asks, session.paid, session.remarks) == (Ending.DONE, 0, 0, ("refused",))
    assert "error : SeekAdvice is not available" in TOKENIZER.decode(session.turns[2].prompt_ids.tolist())


def test_a_forced_retrieval_is_left_out_if_it_is_barred():
    by = rules("RetrieveMemory")
    by = replace(by, agent=by.agent.model_copy(update={"forced": True}))
    policy = reference("always_ask", SHOP, Habits())
    sessions = play_streams(policy, SHOP, split="test", indices=[0], rules=by, price=300)
    assert all(session.correct and session.asks == 1 and not session.remarks for session in sessions)


@pytest.mark.parametrize("bar", ["SeekAdvice", "UpdateMemory", "SearchProduct"])
def test_imitation_never_shows_what_is_barred(bar: str):
    config = Imitation(sessions=256, batch=64, asked_share=0.5)
    found = lessons(config, SHOP, rules(bar), seed=0, progress=lambda _: None)
    token = TOKENIZER.function_id(Function(f"[{bar}]"))
    shown = [one.segment.token_ids.tolist() for batch in found.batches for one in batch]
    assert len(shown) > 200
    assert not any(token in ids for ids in shown)


def test_a_bar_names_the_tool_of_its_environment():
    with pytest.raises(ConfigError, match=r"agent.bar: the tool of shop is SearchProduct, found Search;"):
        build_rules(SHOP, env=Env(name="shop"), agent=Agent(bar=("Search",)), memory=MEMORY, model=None, seed=0)
