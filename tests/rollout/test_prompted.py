"""Prompted policies: a model's text becomes the tokens of the agent's own functions."""

import asyncio
import re
from dataclasses import replace

import pytest

from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent, Memory
from agile_ray.evaluation.plays import plays
from agile_ray.types import Ending, Origin
from envs.endpoints.chat import Chat
from envs.shop import Shop
from launch.run.play_prompted import play_prompted, prompted, used
from rollout.prompted.policies import parts, transcript
from rollout.prompted.prompts import agent_prompt
from tests.fakes.endpoint import Reply, serving
from tests.fakes.streams import script_rules

SHOP = Shop(seed=0)
F = Function


def rules(*bar: str, price: int = 300):
    agent = Agent.model_validate({"bar": bar, "session_tokens": 400, "turn_tokens": 60})
    return script_rules(SHOP, agent=agent, memory=Memory(threshold=0.65), price=price)


def play(name, endpoint, *, sessions=6, by=None):
    chat = Chat(url=endpoint.url, model="m", deadline_s=60.0)
    chosen = plays(SHOP, split="test", sessions=sessions)
    policy = prompted(name, chat, SHOP)
    return play_prompted(policy, SHOP, split="test", plays=chosen, rules=by or rules()), chat


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("[PredictAnswer] yes", [F.PREDICT_ANSWER, "yes", F.SUBMIT_ANSWER, F.CLEAR_CONTEXT]),
        (
            "[PredictAnswer] Yes \n it is [SubmitAnswer]",
            [F.PREDICT_ANSWER, "Yes it is", F.SUBMIT_ANSWER, F.CLEAR_CONTEXT],
        ),
        ("I am not sure. [SeekAdvice] [PredictAnswer] no", [F.SEEK_ADVICE]),
        ("[SearchProduct] SELECT a\nFROM b [SubmitAnswer]", [F.SEARCH_PRODUCT, "SELECT a FROM b"]),
        ("[SearchProduct] [SubmitAnswer]", [F.SEARCH_PRODUCT]),
        (
            "[Reflection] steel rusts\n[UpdateMemory]\n[SubmitAnswer]",
            [F.REFLECTION, "steel rusts", F.UPDATE_MEMORY, F.SUBMIT_ANSWER, F.CLEAR_CONTEXT],
        ),
        ("[SubmitAnswer] now [ClearContext]", [F.SUBMIT_ANSWER, F.CLEAR_CONTEXT]),
        ("maybe  so", ["maybe so"]),
        ("", [""]),
        ("[PredictAnswer]", [F.PREDICT_ANSWER]),
    ],
)
def test_a_reply_becomes_calls_and_their_words(reply, found):
    assert parts(reply) == found


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("[SeekAdvice] how\nwide ? [SubmitAnswer]", [F.SEEK_ADVICE, "how wide ?"]),
        ("[SeekAdvice]", [F.SEEK_ADVICE]),
        ("[SeekAdvice] [PredictAnswer] no", [F.SEEK_ADVICE]),
        ("[AskColleague] how wide ?", [F.ASK_COLLEAGUE]),
    ],
)
def test_the_words_of_an_ask_count_where_it_carries_some(reply, found):
    assert parts(reply, worded={F.SEEK_ADVICE}) == found


def test_the_prompt_says_which_asks_carry_words():
    told = agent_prompt(price=300, search_function=F.SEARCH, barred=(), colleague=50, worded={F.SEEK_ADVICE})
    assert "[SeekAdvice] WORDS: an expert tells" in told
    assert "- If you are not sure: [SeekAdvice] WORDS" in told
    assert "- If another expert will do: [AskColleague]\n" in told
    assert "WORDS" not in agent_prompt(price=300, search_function=F.SEARCH, barred=(), colleague=50)


def test_the_prompt_tells_the_price_and_what_is_there():
    told = agent_prompt(price=300, search_function=F.SEARCH_PRODUCT, barred=())
    assert "[SeekAdvice] costs 0.3," in told
    assert "[SearchProduct] QUERY" in told
    assert "[Search] QUERY" not in told
    without = agent_prompt(price=300, search_function=F.SEARCH, barred={F.SEEK_ADVICE, F.UPDATE_MEMORY})
    for word in ("SeekAdvice", "costs", "UpdateMemory", "SearchProduct", "{"):
        assert word not in without
    assert "[Search] QUERY" in without
    assert not re.search(r"^.*: \[SubmitAnswer\]$", without, re.MULTILINE)  # neither rows nor advice to submit


def test_a_transcript_shows_functions_by_name():
    tokenizer = WordTokenizer()
    ids = [tokenizer.bos_id, tokenizer.function_id(F.GET_QUESTION), *tokenizer.encode("who is [SeekAdvice] ?\n")]
    assert transcript([*ids, tokenizer.eos_id], tokenizer) == "[GetQuestion]\nwho is [SeekAdvice] ?"


def test_the_prompt_policy_sees_one_question_and_answers_it():
    with serving(Reply(said="Yes")) as endpoint:
        sessions, chat = play("prompt", endpoint)
    assert all((one.ending, one.answer, one.origin) == (Ending.DONE, "Yes", Origin.WORDS) for one in sessions)
    assert not any(one.reads or one.writes or one.asks for one in sessions)
    questions = SHOP.stream(split="test", index=0).questions
    assert [asked.shown for asked in endpoint.asked] == [question.shown for question in questions[:6]]
    assert chat.usage.requests == 6


def solver(asked):
    """Asks first, then remembers; searches with the gold query where one is known."""
    shown = asked.shown
    calls = re.findall(r"\[(\w+)\]", shown)
    if calls[-1] == "RetrieveMemory":
        return Reply(said="Let me ask.\n[SeekAdvice]")
    if calls[-1] == "SeekAdvice":
        return Reply(said="[Reflection] all is well [UpdateMemory] [SubmitAnswer]")
    return Reply(said="[PredictAnswer] yes")


def test_the_agent_asks_pays_and_remembers_through_the_executor():
    with serving(then=solver) as endpoint:
        sessions, chat = play("prompted_agent", endpoint, by=rules(price=250))
    assert all(one.correct and one.asks == 1 and one.reward == 750 and not one.remarks for one in sessions)
    assert {use.kind for use in sessions[0].writes} == {"qa", "knowledge"}
    assert sessions[-1].reads
    assert "knowledge : all is well" in endpoint.asked[-1].shown
    assert "costs 0.25," in endpoint.asked[0].body["messages"][0]["content"]
    assert chat.usage.requests == 12
    assert used(chat.usage, (1.0, 10.0)) == (
        "endpoint: 12 requests, 0 retries, 0 failed; 1,200 prompt tokens, 84 completion tokens, cost 0.0020"
    )


def test_the_agent_asks_in_words_and_ends_them():
    def asker(asked):
        reply = solver(asked)
        return replace(reply, said=reply.said.replace("[SeekAdvice]", "[SeekAdvice] is it so ?"))

    with serving(then=asker) as endpoint:
        sessions, _ = play("prompted_agent", endpoint, by=replace(rules(), worded=frozenset({F.SEEK_ADVICE})))
    assert all(one.correct and [receipt.words for receipt in one.receipts] == ["is it so ?"] for one in sessions)
    assert not any(one.remarks for one in sessions)


def test_the_agents_query_runs_and_its_rows_are_submitted():
    questions = SHOP.stream(split="test", index=0).questions
    place, question = next((n, one) for n, one in enumerate(questions) if one.query)

    def searcher(asked):
        return Reply(said="[SubmitAnswer]" if "rows :" in asked.shown else f"[SearchProduct] {question.query}")

    with serving(then=searcher) as endpoint:
        chat = Chat(url=endpoint.url, model="m", deadline_s=60.0)
        lane = Lane(SHOP.stream(split="test", index=0), rules())
        lane.position = place
        session = asyncio.run(lane.play(prompted("prompted_agent", chat, SHOP)))
    assert (session.correct, session.origin, session.remarks) == (True, Origin.ROWS, ())


def test_nonsense_is_answered_by_the_executor_and_ends_by_its_budget():
    by = rules()
    by = replace(by, agent=by.agent.model_copy(update={"turns": 5}))
    with serving(Reply(said="I would rather talk")) as endpoint:
        sessions, _ = play("prompted_agent", endpoint, sessions=1, by=by)
    assert (sessions[0].ending, sessions[0].correct) == (Ending.CUT, False)
    assert "call a function" in endpoint.asked[-1].shown


def test_words_that_are_too_long_are_cut_and_functions_stay():
    with serving(Reply(said="[PredictAnswer] " + "very " * 100 + "[SubmitAnswer]")) as endpoint:
        sessions, _ = play("prompted_agent", endpoint, sessions=1)
    assert sessions[0].ending is Ending.DONE
    assert sessions[0].answer.split() == ["very"] * 57


def test_a_refused_request_fails_its_session_alone():
    with serving(Reply(status=400), Reply(said="[PredictAnswer] yes")) as endpoint:
        sessions, chat = play("prompted_agent", endpoint, sessions=3)
    assert [one.ending for one in sessions] == [Ending.FAILED, Ending.DONE, Ending.DONE]
    assert sessions[0].error.startswith("EndpointError: endpoint http://127")
    assert (chat.usage.requests, chat.usage.failed) == (2, 1)
