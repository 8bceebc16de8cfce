"""Blocking calls: they run at the same time, end on their deadline, and stop no lane but their own."""

import asyncio
import threading
from dataclasses import replace

import pytest

from agile_ray.agent import executor
from agile_ray.agent.environment import Found
from agile_ray.agent.expert import Advice
from agile_ray.agent.threads import in_thread, running_calls
from agile_ray.config import Agent
from agile_ray.types import Ending, Session
from tests.fakes.worlds import ASKS, END, OPENING, PREDICTS, Says, lane, question, rules

LANES = 8
MEET_S = 60.0
"""Longest wait for what comes at once, however busy the machine is, seconds."""
WET = question(1, "is it waterproof ?")
SEARCHES = (*OPENING, f"[SearchProduct] SELECT all {END}", "[SubmitAnswer] [ClearContext]")
FOUND = Found(text="rows : p1", rows=("p1",), bad_query=False)


def test_calls_run_at_the_same_time_and_return_what_they_return():
    meeting = threading.Barrier(LANES, timeout=MEET_S)

    def meet(number):
        meeting.wait()
        return number

    async def all_of_them():
        return await asyncio.gather(*(in_thread(lambda n=n: meet(n)) for n in range(LANES)))

    assert asyncio.run(all_of_them()) == list(range(LANES))


def test_an_error_is_raised_where_the_call_is_waited_for():
    with pytest.raises(KeyError, match="rows"):
        asyncio.run(in_thread(lambda: {}["rows"]))


def test_a_call_runs_until_it_returns_also_if_nobody_waits_for_it_any_more():
    ends = threading.Event()

    async def given_up():
        before = running_calls()
        with pytest.raises(TimeoutError):
            await in_thread(lambda: ends.wait(10), deadline_s=0.01)
        during = running_calls()
        ends.set()
        async with asyncio.timeout(10):
            while running_calls() > before:
                await asyncio.sleep(0.001)
        return during - before

    assert asyncio.run(given_up()) == 1


def test_threads_are_used_again():
    async def one_after_the_other():
        return {await in_thread(threading.get_ident) for _ in range(100)}

    assert len(asyncio.run(one_after_the_other())) < 10


def test_a_late_call_raises_and_its_thread_takes_no_other_call_until_it_ends():
    hangs, ends = threading.Event(), threading.Event()
    hanging: list[int] = []

    def hang():
        hanging.append(threading.get_ident())
        hangs.set()
        assert ends.wait(MEET_S)

    async def others():
        with pytest.raises(TimeoutError):
            await in_thread(hang, deadline_s=0.01)
        assert hangs.wait(MEET_S)
        return {await in_thread(threading.get_ident) for _ in range(20)}

    idents = asyncio.run(others())
    ends.set()
    assert len(hanging) == 1
    assert hanging[0] not in idents


class Meets:
    """A tool, a judge or an expert whose every call blocks until all lanes call it."""

    source = "meets"

    def __init__(self):
        self.barrier = threading.Barrier(LANES, timeout=MEET_S)

    def search(self, query):
        self.barrier.wait()
        return FOUND

    def judge(self, question, submission):
        self.barrier.wait()
        return True

    async def advise(self, question, *, key):
        self.barrier.wait()
        return Advice(text="yes", answer="yes")


@pytest.mark.parametrize(("part", "turns"), [("search", SEARCHES), ("judge", PREDICTS), ("advise", ASKS)])
def test_a_call_that_blocks_stops_no_other_lane(part, turns):
    meets = Meets()
    lanes = [lane(WET, with_rules=rules(expert=meets) if part == "advise" else None) for _ in range(LANES)]
    if part != "advise":
        for one in lanes:
            setattr(one.stream, part, getattr(meets, part))

    async def together() -> list[Session]:
        return await asyncio.gather(*(one.play(Says(*turns)) for one in lanes))

    assert [(session.ending, session.error, session.correct) for session in asyncio.run(together())] == [
        (Ending.DONE, None, True)
    ] * LANES


@pytest.mark.parametrize(("part", "turns"), [("search", SEARCHES), ("judge", PREDICTS)])
def test_a_tool_or_a_judge_that_hangs_ends_its_own_session(monkeypatch, part, turns):
    monkeypatch.setattr(executor, "HANGING_S", 0.04)
    ends = threading.Event()
    hangs, works = lane(WET, with_rules=rules(tool_s=0.01)), lane(WET, with_rules=rules(tool_s=MEET_S))
    setattr(hangs.stream, part, lambda *_: ends.wait(MEET_S))

    async def together():
        return await asyncio.gather(hangs.play(Says(*turns)), works.play(Says(*turns)))

    hung, worked = asyncio.run(together())
    ends.set()
    name = {"search": "tool", "judge": "judge"}[part]
    assert hung.ending is Ending.FAILED
    assert hung.error == f"ToolError: {name}: a call must end within env.tool_s (0.01 s), and ran 0.04 s longer"
    assert (worked.ending, worked.correct) == (Ending.DONE, True)


class Blocks:
    """An expert that blocks in its first ask."""

    source = "blocks"

    def __init__(self):
        self.begins, self.ends = threading.Event(), threading.Event()
        self.asked = []

    async def advise(self, question, *, key):
        self.asked.append(str(key))
        if len(self.asked) == 1:
            self.begins.set()
            self.ends.wait(MEET_S)
        return Advice(text=f"say {len(self.asked)}", answer="yes")


def test_an_expert_that_blocks_beyond_its_deadline_is_late_and_its_answer_is_never_paid():
    expert = Blocks()
    bought = []
    one = lane(WET, WET, with_rules=rules(agent=Agent(expert_s=0.2), expert=expert))
    one._expert._bought = bought.append
    start = one.state()

    async def play():
        late = await one.play(Says(*ASKS))
        assert expert.begins.wait(MEET_S)
        expert.ends.set()  # the answer comes now, and nobody reads it
        one.restore(start)
        one._expert._deadline_s = MEET_S
        return late, await one.play(Says(*ASKS))

    late, again = asyncio.run(play())
    assert late.error == "ExpertError: expert blocks: no answer within agent.expert_s (0.2 s)"
    assert (late.paid, late.receipts) == (0, ())
    assert [receipt.advice for receipt in again.receipts] == ["say 2"]
    assert bought == [*again.receipts]
    assert again.abandoned == ()


def test_an_expert_that_awaits_is_cancelled_at_its_deadline():
    cancelled = threading.Event()

    class Awaits:
        source = "awaits"

        async def advise(self, question, *, key):
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

    session = asyncio.run(lane(WET, with_rules=rules(agent=Agent(expert_s=0.05), expert=Awaits())).play(Says(*ASKS)))
    assert session.error == "ExpertError: expert awaits: no answer within agent.expert_s (0.05 s)"
    assert cancelled.wait(MEET_S)


def test_a_lane_embeds_nothing_on_the_event_loop():
    class Strict(type(rules().embedder)):
        """Embeds on the event loop only what was prepared."""

        def __init__(self):
            self.prepared = set()

        async def prepare(self, texts):
            await asyncio.sleep(0)
            self.prepared |= set(texts)

        def embed(self, texts):
            if threading.current_thread() is threading.main_thread():
                assert self.prepared.issuperset(texts), f"not prepared: {set(texts) - self.prepared}"
            return super().embed(texts)

    strict = replace(rules(top_k=3), embedder=Strict())
    one = lane(*(question(n, f"is it good for {n} ?") for n in range(40)), with_rules=strict)
    sessions = [asyncio.run(one.play(Says(*ASKS))) for _ in range(20)]
    other = lane(*one.stream.questions, with_rules=replace(strict, embedder=Strict()))
    other.restore(one.state())
    sessions += [asyncio.run(other.play(Says(*ASKS))) for _ in range(20)]
    assert all(session.ending is Ending.DONE for session in sessions)
    assert sum(len(session.hindsight.counterfactuals) for session in sessions) > 39
