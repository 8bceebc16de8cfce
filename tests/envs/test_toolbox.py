"""Whatever a tool does, the policy reads a text, and the lane goes on."""

import asyncio
import json
import sqlite3
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from agile_ray.agent.environment import Question
from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion
from agile_ray.agent.rules import Rules
from agile_ray.config import Agent
from agile_ray.config import Memory as MemoryConfig
from agile_ray.errors import ConfigError
from agile_ray.scripted.references import Habits, reference
from agile_ray.types import Ending
from envs.dataset.judges import exact
from envs.one_stream import OneStream
from envs.sql import SqlTool
from envs.tools import call, with_tools
from envs.tools.instances import calculator, paragraphs, sql
from envs.tools.tool import function_tool
from envs.tools.toolbox import HANGING, Toolbox
from rollout.tokenizer import HFTokenizer
from tests.fakes.model_folder import encoder
from tests.fakes.streams import script_rules
from tests.fakes.worlds import END, OPENING, Says, read

LONG_S = 60.0
"""Longer than any deadline that a test waits for, and the deadline of what comes at once, seconds."""


async def waits(seconds: float) -> str:
    """Waits."""
    await asyncio.sleep(seconds)
    return "waited"


async def blocks(seconds: float) -> str:
    """Blocks its thread, as a library may that is not async."""
    time.sleep(seconds)
    return "blocked"


async def stubborn() -> str:
    """Ignores being cancelled."""
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue
    return "late"


async def crashes(how: str) -> str:
    """Raises."""
    if how == "exit":
        raise SystemExit(3)
    if how == "timeout":
        raise TimeoutError("of its own")
    if how == "cancelled":
        raise asyncio.CancelledError
    raise KeyError(how)


async def huge(megabytes: int) -> str:
    """Returns a lot."""
    return "x" * (megabytes << 20)


async def spells(text: str) -> str:
    """Returns the text, twice."""
    return f"{text} {text}"


async def structured(names: list[str], upper: bool = False) -> dict[str, object]:
    """Returns an object."""
    return {"names": [name.upper() if upper else name for name in names]}


TOOLS = (waits, blocks, stubborn, crashes, huge, spells, structured)


def toolbox(*, deadline_s):
    return Toolbox([function_tool(tool) for tool in TOOLS], deadline_s=deadline_s, characters=60)


def reply(written, *, deadline_s=LONG_S):
    return asyncio.run(toolbox(deadline_s=deadline_s).call(written))


@pytest.mark.parametrize(
    ("written", "says", "remark"),
    [
        (call("waits", seconds=LONG_S), "error : waits took longer than 0.2 s", "tool_late"),
        (call("blocks", seconds=LONG_S), "error : blocks took longer than 0.2 s", "tool_late"),
        ("stubborn", "error : stubborn took longer than 0.2 s", "tool_late"),
        (call("crashes", how="nothing"), "error : crashes : KeyError: 'nothing'", "tool_crashed"),
        (call("crashes", how="exit"), "error : crashes : SystemExit: 3", "tool_crashed"),
        (call("crashes", how="timeout"), "error : crashes : TimeoutError: of its own", "tool_crashed"),
        (call("crashes", how="cancelled"), "error : crashes : CancelledError", "tool_crashed"),
        (call("huge", megabytes=10), f"{'x' * 60} ... ( 10485760 characters )", "tool_cut"),
        (call("structured", names=["a", "b"]), '{"names": ["a", "b"]}', ""),
        (call("structured", names=["a"], upper=True), '{"names": ["A"]}', ""),
        (call("structured", names="a"), "error : structured : names : Input should be a valid list", ""),
        (call("structured"), "error : structured : names : Missing required argument", ""),
        (call("spells", text="a", more=1), "error : spells : more : Unexpected keyword argument", ""),
        ("spel {}", "error : there is no tool spel , use spells", ""),
        ("spells {'text': 1}", "error : spells : the arguments are no JSON", ""),
        ("spells " + "[" * 99_999, "error : a call is a name and arguments in JSON", ""),
        ('spells {"text": ' + "[" * 99_999 + "]" * 99_999 + "}", "error : spells : the arguments are no JSON", ""),
        ("", "error : a call is a name and arguments in JSON", ""),
    ],
)
def test_whatever_a_tool_does_the_policy_reads_a_text_in_time(written, says, remark):
    begun = time.monotonic()
    found = reply(written, deadline_s=0.2 if remark == "tool_late" else LONG_S)
    assert found.text == says
    assert found.remark == remark
    assert found.bad_query is says.startswith("error : ")
    assert found.rows is None
    assert time.monotonic() - begun < LONG_S


def test_half_a_surrogate_pair_becomes_a_text_that_can_be_stored():
    assert reply('spells {"text": "\\ud800"}').text.encode() == b"? ?"


def test_a_tool_whose_calls_all_hang_is_refused_until_one_ends():
    ends = threading.Event()

    async def held() -> str:
        """Blocks its thread."""
        assert ends.wait(LONG_S)
        return "held"

    box = Toolbox([function_tool(held), function_tool(spells)], deadline_s=0.01)

    async def hang():
        return await asyncio.gather(*(box.call("held") for _ in range(HANGING)))

    assert all("took longer" in found.text for found in asyncio.run(hang()))
    box._deadline_s = LONG_S
    refused = asyncio.run(box.call("held"))
    assert (refused.text, refused.remark) == ("error : held is out of order", "tool_late")
    assert asyncio.run(box.call(call("spells", text="a"))).text == "a a"
    ends.set()
    end = time.monotonic() + LONG_S
    while (found := asyncio.run(box.call("held"))).bad_query and time.monotonic() < end:
        time.sleep(0.01)
    assert found.text == "held"


def world(*questions, deadline_s=LONG_S):
    asked = questions or tuple(Question(id=f"q{n}", text=f"what about {n} ?", answer="yes") for n in range(3))
    splits = dict.fromkeys(("imitation", "train", "validation", "test"), asked)
    return with_tools(OneStream("tools", splits=splits, judge=exact), *TOOLS, deadline_s=deadline_s, characters=60)


def session_rules(environment, tokenizer=None) -> Rules:
    made = script_rules(environment, agent=Agent(session_tokens=4000, turn_tokens=200), memory=MemoryConfig())
    return made if tokenizer is None else replace(made, tokenizer=tokenizer)


def calls(*written):
    return (
        *OPENING,
        *(f"[CallTool] {one} {END}" for one in written),
        "[PredictAnswer] yes [SubmitAnswer] [ClearContext]",
    )


@pytest.mark.parametrize(
    ("written", "remarks"),
    [
        ([call("waits", seconds=LONG_S)], ("tool_late", "bad_query")),
        ([call("blocks", seconds=LONG_S)], ("tool_late", "bad_query")),
        ([call("crashes", how="exit")], ("tool_crashed", "bad_query")),
        ([call("huge", megabytes=10)], ("tool_cut",)),
        ([call("spells", text="a"), call("huge", megabytes=1), "nothing"], ("tool_cut", "bad_query")),
    ],
)
def test_a_lane_goes_on_after_any_tool_and_counts_what_happened(written, remarks):
    environment = world(deadline_s=0.2 if "tool_late" in remarks else LONG_S)
    lane = Lane(environment.stream(split="test", index=0), session_rules(environment))
    first = asyncio.run(lane.play(Says(*calls(*written))))
    environment._tools._deadline_s = LONG_S
    second = asyncio.run(lane.play(Says(*calls(call("spells", text="b")))))
    assert (first.ending, first.correct, first.remarks) == (Ending.DONE, True, remarks)
    assert (second.ending, second.remarks) == (Ending.DONE, ())


@pytest.mark.parametrize("text", ["[SeekAdvice]", "[ClearContext] [SubmitAnswer]", "</s><s>", "[CallTool] spells {}"])
def test_a_tool_that_prints_function_tokens_prints_words(tmp_path, text):
    made = PreTrainedTokenizerFast(tokenizer_object=encoder(), bos_token="<s>", eos_token="</s>")
    made.save_pretrained(tmp_path)
    tokenizer = HFTokenizer(tmp_path)
    environment = world()
    lane = Lane(environment.stream(split="test", index=0), session_rules(environment, tokenizer))
    written = tokenizer.encode(f"spells {json.dumps({'text': text})}")
    ids = [tokenizer.function_id(Function.CALL_TOOL), *written, tokenizer.eos_id]
    session = asyncio.run(lane.play(Writes(*OPENING, ids, "[PredictAnswer] yes [SubmitAnswer] [ClearContext]")))
    observed = session.turns[3].prompt_ids[len(session.turns[2].prompt_ids) + len(ids) :].tolist()
    assert tokenizer.decode(observed) == f"{text} {text}\n"
    controls = {tokenizer.bos_id, tokenizer.eos_id, *(tokenizer.function_id(function) for function in Function)}
    assert controls.isdisjoint(observed)
    assert (session.ending, session.correct, session.receipts) == (Ending.DONE, True, ())


class Writes(Says):
    """A policy whose turns may be ids."""

    async def write(self, view):
        if isinstance(self.turns[0], str):
            return await super().write(view)
        ids = np.array(self.turns.pop(0), np.int32)
        return Completion(ids=ids, logprobs=np.zeros(len(ids), np.float32), versions=np.zeros(len(ids), np.int32))


def test_the_teacher_calls_several_tools_in_one_session():
    asked = Question(
        id="q", text="twice ?", answer="b", query=call("spells", text="a"), more_queries=(call("structured", names=[]),)
    )
    environment = world(asked)
    lane = Lane(environment.stream(split="test", index=0), session_rules(environment))
    session = asyncio.run(lane.play(reference("never_ask", environment, Habits())))
    assert session.correct
    text = read(session.turns[-1].prompt_ids, lane._rules.tokenizer)
    assert "a a\n" in text
    assert '{"names": []}\n' in text


def test_the_question_shows_the_tools_with_their_arguments():
    shown = world().stream(split="test", index=0).questions[0].shown
    assert "tool : structured ( names : array , upper : boolean ) Returns an object." in shown.splitlines()


async def undocumented(a: int) -> int:
    return a


async def untyped(a) -> int:
    """Has no types."""
    return a


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ((undocumented,), "tool undocumented: its docstring tells the policy what it does, found none"),
        ((untyped,), "tool untyped: every argument has a name and a type, found a without"),
        ((waits, waits), r"each has a name of its own, and there is at least one; found \['waits'\]"),
        ((), "there is at least one; found none"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused(tools, says):
    environment = OneStream("x", splits={"train": [Question(id="a", text="b", answer="c")]}, judge=exact)
    with pytest.raises(ConfigError, match=says):
        with_tools(environment, *tools, deadline_s=1.0)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("3 * (4 + 1)", "15"), ("7 / 2", "3.5"), ("-2 ** 3", "-8"), ("10 % 4", "2"), ("1e3 * 123456", "123456000")],
)
def test_the_calculator_calculates(expression, value):
    assert asyncio.run(calculator(expression)) == value


@pytest.mark.parametrize("expression", ["9 ** 99", "9 ** 9 ** 9", "__import__('os')", "1 / 0", "(", "'a' * 9", "True"])
def test_the_calculator_refuses_what_is_no_calculation_or_too_large(expression):
    box = Toolbox([function_tool(calculator)], deadline_s=LONG_S)
    found = asyncio.run(box.call(call("calculator", expression=expression)))
    assert found.remark == "tool_crashed"


def test_sql_and_paragraph_search_are_tools():
    database = sqlite3.connect(":memory:")
    database.execute("create table t (product_id text, price real)")
    database.executemany("insert into t values (?, ?)", [("p1", 3.0), ("p2", 9.0)])
    database.commit()
    tools = [
        function_tool(sql(SqlTool(database, table="t"))),
        function_tool(paragraphs({"Oslo": "a town", "Ob": "a river"})),
    ]
    box = Toolbox(tools, deadline_s=LONG_S)
    assert asyncio.run(box.call(call("select", query="SELECT product_id FROM t WHERE price > 5"))).text == "rows : p2"
    assert asyncio.run(box.call(call("select", query="SELECT nothing FROM t"))).bad_query
    assert asyncio.run(box.call(call("search", query="oslo"))).text == "Oslo : a town"
