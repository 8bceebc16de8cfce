"""The memories of lanes that begin inside their streams, grown without an engine."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest

from agile_ray.agent.environment import Environment, Question, Submission
from agile_ray.agent.lane import Lane, LaneState
from agile_ray.agent.memory import Entry
from agile_ray.agent.rules import Rules
from agile_ray.config import Agent, Memory
from agile_ray.errors import ExpertError, StarvedError
from agile_ray.evaluation.plays import Play
from agile_ray.prices import Prices
from agile_ray.scripted.head_start import AskingShares, are_spread, first_position, head_start
from agile_ray.scripted.reader import Scripted
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.types import Ending
from envs.recurring import Recurring
from envs.shop import Shop, ShopStream
from tests.fakes.fallible import Fallible
from tests.fakes.played import session
from tests.fakes.streams import script_rules
from tests.fakes.worlds import SESSION, changed, question

SHOP = Shop(seed=0)
RULES = script_rules(SHOP, agent=Agent(), memory=Memory(threshold=0.65))
KINDS = sorted({question.kind for question in SHOP.stream(split="train", index=0).questions})
HALF = AskingShares(kinds={}, overall=0.5)


def grown(
    position: int,
    shares: AskingShares = HALF,
    *,
    world: Environment = SHOP,
    index: int = 0,
    seed: int = 0,
    rules: Rules = RULES,
) -> LaneState:
    stream = world.stream(split="train", index=index)
    return asyncio.run(head_start(world, stream, rules, position=position, shares=shares, seed=seed))


def writers(state: LaneState) -> list[int]:
    return sorted({entry.writer for entry in state.memory.entries})


def whole(position: int, asking: Collection[int], *, index: int) -> tuple[Entry, ...]:
    """The memory after every session before a position was played, those at `asking` with an ask."""
    lane = Lane(SHOP.stream(split="train", index=index), RULES)
    policy = Scripted(
        lambda view: view.position in asking,
        search_function=SHOP.search_function,
        guess=lambda question: question.guess,
    )
    for _ in range(position):
        asyncio.run(lane.play(policy))
    return lane.state().memory.entries


class Watched(ShopStream):
    """A stream of the shop that notes which sessions asked."""

    def __init__(self, index: int) -> None:
        stream = SHOP.stream(split="train", index=index)
        super().__init__(id=stream.id, episode=stream._episode, tool_s=2.0)
        self.asked: set[str] = set()

    def judge(self, question: Question, submission: Submission) -> bool:
        if submission.advised:
            self.asked.add(question.id)
        return super().judge(question, submission)


@pytest.mark.parametrize("index", range(4))
def test_memory_is_that_of_playing_every_earlier_session(index: int):
    stream = Watched(index)
    state = asyncio.run(head_start(SHOP, stream, RULES, position=40, shares=HALF, seed=0))
    asked = {position for position, question in enumerate(stream.questions) if question.id in stream.asked}
    assert 10 < len(asked) < 30
    assert max(asked) < 40
    assert state.memory.entries == whole(40, asked, index=index)
    assert (state.position, state.receipts, state.stream) == (40, (), stream.id)


def test_a_draw_depends_on_seed_stream_and_position_alone():
    once, longer = (grown(position).memory.entries for position in (24, 40))
    assert once == grown(24).memory.entries == longer[: len(once)]
    assert len(longer) > len(once)
    assert writers(grown(48)) != writers(grown(48, seed=1))
    assert writers(grown(48)) != writers(grown(48, index=1))


def test_a_session_asks_with_the_share_of_its_kind_or_the_overall_one():
    questions = SHOP.stream(split="train", index=0).questions
    kinds = sorted({question.kind for question in questions})
    state = grown(48, AskingShares(kinds={kinds[0]: 1.0, kinds[1]: 0.0}, overall=1.0))
    asked = {questions[writer].kind for writer in writers(state)}
    assert asked == set(kinds) - {kinds[1]}
    assert grown(48, AskingShares(kinds=dict.fromkeys(kinds, 0.0), overall=1.0)).memory.entries == ()


def test_the_shares_of_many_lanes_are_those_that_were_given():
    world = Recurring(seed=0)  # each item is asked three times, and remembered unless none of them asks
    rules = script_rules(world, agent=Agent(), memory=Memory())
    sizes = [
        len(grown(24, AskingShares(kinds={}, overall=0.3), world=world, index=i, rules=rules).memory.entries)
        for i in range(100)
    ]
    assert sum(sizes) / 100 == pytest.approx(8 * (1 - 0.7**3), abs=0.5)  # 3.7 deviations


def test_shares_come_from_sessions_that_did_not_fail():
    played = [session(index, right=False, asked=asked) for index, asked in enumerate((True, False, False, False))]
    shares = AskingShares.of([*played, changed(SESSION, kind="other", ending=Ending.FAILED, error="ToolError: gone")])
    assert shares == AskingShares(kinds={"fact": 0.5, "search": 0.0}, overall=0.25)
    assert shares.on(replace(question(0, "what"), kind="other"), price=300) == 0.25
    with pytest.raises(StarvedError):
        AskingShares.of([changed(SESSION, ending=Ending.FAILED, error="ToolError: gone")])


def test_a_model_that_calls_no_function_has_asking_shares_and_memories_start_empty():
    """Where nothing is imitated, sessions of the given model may all run out of their budget."""
    shares = AskingShares.of([changed(SESSION, kind="fact", ending=Ending.CUT) for _ in range(3)])
    assert shares == AskingShares(kinds={"fact": 0.0}, overall=0.0)
    assert not grown(12, shares).memory.entries


def test_a_lane_asks_with_the_share_at_its_own_price():
    def at(price, asks):
        played = [session(index, right=False, asked=asked) for index, asked in enumerate(asks)]
        return [changed(one, kind="fact", price=price) for one in played]

    shares = AskingShares.of([*at(100, (True, True, True, False)), *at(900, (False, False, True, False))])
    asked = question(0, "what")
    assert [shares.on(asked, price=price) for price in (100, 900, 500)] == [0.75, 0.25, 0.5]

    prices = Prices(amounts=(100, 900), seed=3, told=True)
    rules = replace(RULES, prices=prices)
    priced = {(kind, price): float(price == 100) for kind in KINDS for price in (100, 900)}
    split = AskingShares(kinds={}, overall=0.5, priced=priced)
    cheap = [prices.at(SHOP.stream(split="train", index=index).id) == 100 for index in range(8)]
    assert True in cheap
    assert False in cheap
    states = [grown(24, split, index=index, rules=rules) for index in range(8)]
    assert [len(writers(state)) > 16 for state in states] == cheap
    assert all(not writers(state) for state, one in zip(states, cheap, strict=True) if not one)


def test_sessions_that_asked_an_expert_in_vain_asked():
    class Silent(Fallible):
        async def advise(self, question, *, key):
            raise ExpertError("expert silent: knows nothing")

    shares = []
    for expert in (Fallible(0.5), Silent(0.5)):
        rules = replace(RULES, expert=expert)
        policy = reference("random", SHOP, Habits(asked_share=0.5))
        plays = [Play(index=index, sessions=48) for index in range(2)]
        shares.append(AskingShares.of(play_sessions(policy, SHOP, split="validation", plays=plays, rules=rules)))
    assert shares[0] == shares[1]
    assert 0.3 < shares[0].overall < 0.7


def test_the_gold_expert_answers_whatever_the_runs_expert_knows():
    class Silent:
        source = "silent"

        async def advise(self, question, *, key):
            raise ExpertError("expert silent: knows nothing")

    assert grown(30, rules=replace(RULES, expert=Silent())).memory.entries == grown(30).memory.entries


def test_a_memory_in_forced_mode_and_one_that_is_full_keep_the_runs_rules(monkeypatch):
    forced = replace(RULES, agent=Agent(forced=True))
    assert grown(30, rules=forced).memory.entries == grown(30).memory.entries
    monkeypatch.setattr("agile_ray.agent.lane.CAPACITY", 2)
    kept = grown(48).memory.entries
    assert [len({entry.text for entry in kept if entry.kind == kind}) for kind in ("qa", "knowledge")] == [2, 2]


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [(12, [0, 12, 24, 36]), (1, [0, 12, 24, 36]), (47, [0, 12, 24, 36]), (48, [0] * 4), (96, [0] * 4), (72, None)],
)
def test_lanes_begin_at_even_distances_unless_each_collects_whole_streams(sessions: int, expected: list[int] | None):
    stream = SHOP.stream(split="train", index=0)
    found = [first_position(stream, number=number, lanes=4, sessions=sessions) for number in range(4)]
    assert found == (expected or [0, 12, 24, 36])
    assert are_spread(SHOP, lanes=4, sessions=sessions) == any(found)
    assert not are_spread(SHOP, lanes=1, sessions=sessions)
    assert [first_position(stream, number=n, lanes=100, sessions=12) for n in (1, 2, 3, 99)] == [0, 0, 1, 47]
