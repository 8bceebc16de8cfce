"""Which lane plays which sessions, on a fake engine that never answers."""

import pickle
from collections import Counter
from dataclasses import replace
from functools import reduce
from types import SimpleNamespace

import pytest

from agile_ray.agent.environment import Environment
from agile_ray.agent.memory import Entry
from agile_ray.agent.rules import Rules
from agile_ray.config import Agent, Credit, Memory
from agile_ray.credit.assign import CreditAssigner
from agile_ray.credit.modes import MODES
from agile_ray.errors import ConfigError, ContractError, EngineError
from agile_ray.evaluation.plays import Part, Play
from agile_ray.scripted.guided import Guide
from agile_ray.scripted.head_start import AskingShares
from agile_ray.scripted.references import Habits, reference
from agile_ray.segments import cut
from agile_ray.types import Session
from envs.recurring import ITEMS, LENGTH, RECUR, Recurring
from envs.shop import Shop
from envs.wrappers.stretches import Stretches
from rollout.engine_policy import Seating
from rollout.fleet.messages import Lease, Orders
from rollout.player import Player
from tests.fakes.engine import FakeEngine
from tests.fakes.fleet import Alone, Books
from tests.fakes.parts import zeros
from tests.fakes.streams import script_rules

WORLD = Recurring(seed=0)
RULES = script_rules(WORLD, agent=Agent(forced=True, turns=1, turn_tokens=2), memory=Memory())


def player(
    *,
    engine: FakeEngine | None = None,
    numbers: range = range(2),
    seed: int = 0,
    deterministic: bool = False,
    deadline_s: float = 60.0,
    kind: type[Player] = Player,
    rules: Rules = RULES,
    seats: int | None = None,
) -> Alone:
    one = kind(
        engine=engine or FakeEngine(),
        environment=Recurring(seed=seed),
        rules=rules,
        total=4,
        sessions=1,
        seats=seats or len(numbers),
        temperature=1.0,
        seed=seed if deterministic else None,
        books=Books(),
        deadline_s=deadline_s,
    )
    return Alone(one, numbers=numbers)


def stations(sessions: list[Session]) -> list[tuple[str, int]]:
    return [(session.stream, session.position) for session in sessions]


def standing(player: Alone) -> list[tuple[int, int, str, int]]:
    """The positions of lanes without their memories, which contain arrays."""
    return [(one.number, one.round, one.state.stream, one.state.position) for one in player.positions()]


def stream(index: int, *, split: str = "train") -> str:
    return f"recurring/{split}/0/{index}"


def test_lanes_continue_from_call_to_call_and_sessions_are_returned_lane_by_lane() -> None:
    one = player(numbers=range(2, 4))
    assert stations(one.collect(2)) == [(stream(n), position) for n in (2, 3) for position in (0, 1)]
    assert stations(one.collect(1)) == [(stream(2), 2), (stream(3), 2)]


def test_a_lane_continues_with_a_stream_that_no_other_lane_plays() -> None:
    sessions = player().collect(LENGTH + 1)
    assert stations(sessions)[LENGTH] == (stream(4), 0)  # lane 0 of 4
    assert stations(sessions)[-1] == (stream(5), 0)


def test_restored_lanes_play_the_same_sessions_again() -> None:
    one = player()
    one.collect(LENGTH - 1)
    positions, before = list(one.positions()), standing(one)
    first = one.collect(3)
    one.restore(positions)
    with pytest.raises(ContractError, match="lane 0 is leased to one player at a time, and it is here"):
        one.collect(1)
    other = player()
    other.restore(positions)
    assert standing(other) == before
    assert stations(other.collect(3)) == stations(first)


@pytest.mark.parametrize("recalls", [1, 3, 9])
def test_recalled_are_the_waiting_lanes_that_a_seat_would_take_last(recalls: int) -> None:
    one = player(seats=1)

    async def order() -> list[int]:
        behind = [5, 2, 7, 2, 6]  # sessions that lanes 0 to 4 have played; lane 1 gets the seat
        leases = tuple(
            Lease(number=number, epoch=1, played=played, position=None) for number, played in enumerate(behind)
        )
        one.player.order(Orders(number=1, allowed=9, paused=False, leases=leases))
        one.player.order(Orders(number=2, allowed=9, paused=False, recalls=recalls))
        report = await one.player.report(0.0)
        assert (report.playing, report.waiting) == (1, max(0, 4 - recalls))
        one.player.close()
        return [returned.number for returned in report.returned]

    assert sorted(one.loop.run_until_complete(order())) == sorted([2, 4, 0, 3][:recalls])


def test_positions_in_other_streams_are_refused() -> None:
    one, other = player(), player(seed=1)
    one.collect(1)
    other.restore(one.positions())
    with pytest.raises(ConfigError, match=r"lane (\d) played stream recurring/train/0/\1 .* recurring/train/1/\1 "):
        other.collect(1)


def evaluate(
    player: Alone, *plays: Play, greedy: bool = True, keeps: bool = False, guide: Guide | None = None
) -> list[Part]:
    return player.evaluate(*plays, greedy=greedy, keeps=keeps, guide=guide)


def test_every_collected_session_knows_how_many_similar_questions_follow() -> None:
    found = [one.hindsight for one in player().collect(LENGTH)]
    assert sum(one.later_similar for one in found) >= 2 * ITEMS * (RECUR * (RECUR - 1) // 2)
    for position, one in [(n % LENGTH, one) for n, one in enumerate(found)]:
        assert one.later_similar >= sum(later > position for later in one.same_item)


@pytest.mark.parametrize("greedy", [True, False])
def test_an_evaluation_reports_every_stream_once_and_does_not_move_the_lanes(greedy: bool) -> None:
    engine = FakeEngine()
    one = player(engine=engine)
    before = standing(one)
    chosen = [Play(index=5, sessions=2), Play(index=1, sessions=1), Play(index=3, sessions=3)]
    parts = {part.index: part for part in evaluate(one, *chosen, greedy=greedy)}
    assert len(parts) == 3
    for play in chosen:
        part = parts[play.index]
        assert stations([*part.sessions]) == [(stream(play.index, split="test"), n) for n in range(play.sessions)]
        assert part.state is None
    assert engine.calls[0] == "forget"
    assert standing(one) == before


def test_a_long_stream_has_a_seat_of_its_own_while_the_others_share() -> None:
    engine = FakeEngine()
    lengths = [2, 2, 6, 2]
    evaluate(player(engine=engine), *(Play(index=n, sessions=m) for n, m in enumerate(lengths)))
    assert [len(batch) for batch in engine.batches] == [2] * 6


class Scripted(Player):
    """Lanes that a script plays, which asks every question and so fills their memories."""

    def _seating(self, *, seats: int, greedy: bool) -> Seating:
        del seats, greedy
        policy = reference("always_ask", WORLD, Habits())
        return SimpleNamespace(seat=lambda _: policy, leave=lambda _: None)  # pyright: ignore[reportReturnType]


def test_counterfactuals_are_built_where_credit_may_score_them_and_nowhere_else() -> None:
    rules = script_rules(WORLD, agent=Agent(), memory=Memory(threshold=0.65))
    collected = player(kind=Scripted, rules=rules).collect(LENGTH)
    evaluated = evaluate(player(kind=Scripted, rules=rules), Play(index=0, sessions=LENGTH))[0].sessions
    built = [sum(len(one.hindsight.counterfactuals) for one in played) for played in (collected, evaluated)]
    assert built[0] > 0
    assert built[1] == 0
    assert any(session.reads for session in evaluated)
    assert any(session.hindsight.known for session in evaluated)  # the other facts are there


def outcome(session: Session) -> tuple[object, ...]:
    found = session.hindsight
    prompts = [turn.prompt_ids.tolist() for turn in session.turns]
    return session.position, session.answer, session.reads, found.known, found.memory_sizes, prompts


@pytest.mark.parametrize("stop", [1, 4])
def test_a_stream_goes_on_from_any_part_as_if_it_had_not_stopped(monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    monkeypatch.setattr("rollout.player.PART_S", -1.0)
    rules = script_rules(WORLD, agent=Agent(), memory=Memory(threshold=0.65))
    play = Play(index=0, sessions=6)

    def run(play: Play) -> list[Part]:
        return evaluate(player(kind=Scripted, rules=rules), play, Play(index=1, sessions=2), keeps=True)

    whole = [part for part in run(play) if part.index == 0]
    assert [len(part.sessions) for part in whole] == [1] * 6
    state = pickle.loads(pickle.dumps(reduce(Part.then, whole[:stop]).state))
    rest = [part for part in run(replace(play, begun=state)) if part.index == 0]
    assert [part.state is None for part in rest] == [False] * (5 - stop) + [True]
    again = [session for part in rest for session in part.sessions]
    assert list(map(outcome, again)) == [outcome(part.sessions[0]) for part in whole[stop:]]
    assert sum(again[0].hindsight.memory_sizes.values()) == stop


@pytest.mark.parametrize("guide", [Guide(name="own_non_adaptive", first=3), Guide(name="own_answer")])
def test_a_guided_stream_goes_on_with_the_memory_that_its_script_grew(
    monkeypatch: pytest.MonkeyPatch, guide: Guide
) -> None:
    monkeypatch.setattr("rollout.player.PART_S", -1.0)
    rules = script_rules(WORLD, agent=Agent(turns=4, turn_tokens=24), memory=Memory(threshold=0.65))

    def run(play: Play) -> list[Part]:
        return evaluate(player(rules=rules), play, keeps=True, guide=guide)

    whole = run(Play(index=0, sessions=6))
    state = pickle.loads(pickle.dumps(reduce(Part.then, whole[:4]).state))
    asked = 3 if guide.first else 4
    assert len({entry.writer for entry in state.memory.entries}) == asked
    rest = run(Play(index=0, sessions=6, begun=state))
    played = [session for part in rest for session in part.sessions]
    assert list(map(outcome, played)) == [outcome(part.sessions[0]) for part in whole[4:]]
    assert sum(played[0].hindsight.memory_sizes.values()) == asked
    assert sum(session.asks for part in whole for session in part.sessions) == guide.first


def test_deterministic_lanes_write_each_turn_together_and_end_together() -> None:
    engine = FakeEngine()
    one = player(engine=engine, numbers=range(3), deterministic=True)
    one.collect(2)
    assert [len(batch) for batch in engine.batches] == [3, 3]
    evaluate(one, *(Play(index=n, sessions=n + 1) for n in range(2)), greedy=False)
    assert [len(batch) for batch in engine.batches] == [3, 3, 2, 1]
    drawn = [seed for batch in engine.seeds if batch for seed in batch]
    assert len({*drawn}) == 9


def test_an_engine_that_fails_ends_the_collection() -> None:
    with pytest.raises(EngineError, match="lost"):
        player(engine=FakeEngine(fails_in="generate")).collect(1)


# Lanes that begin at different places.

WORLDS = [Recurring(seed=0), Shop(seed=0), Stretches(Shop(seed=0), sessions=20)]
LANES = 8
SHARES = AskingShares(kinds={}, overall=0.6)


def spread(world: Environment, *, sessions: int, numbers: range = range(LANES), seed: int = 0) -> Alone:
    """A player of some of eight lanes, which begin as those of a training do."""
    one = Player(
        engine=FakeEngine(),
        environment=world,
        rules=script_rules(world, agent=Agent(forced=True, turns=4), memory=Memory(threshold=0.65)),
        total=LANES,
        sessions=sessions,
        seats=len(numbers),
        temperature=1.0,
        seed=None,
        books=Books(),
        deadline_s=60.0,
    )
    alone = Alone(one, numbers=numbers)
    alone.spread(SHARES, seed=seed)
    return alone


def length(world: Environment) -> int:
    return len(world.stream(split="train", index=0).questions)


def remembered(session: Session) -> int:
    """Sessions whose entries memory held."""
    return sum(session.hindsight.memory_sizes.values())


def memories(player: Alone) -> list[tuple[str, int, tuple[Entry, ...]]]:
    return [(one.state.stream, one.state.position, one.state.memory.entries) for one in player.positions()]


@pytest.mark.parametrize("world", WORLDS)
def test_a_batch_covers_the_whole_stream_evenly_and_memories_grow_along_it(world: Environment) -> None:
    whole = length(world)
    sessions = -(-whole // LANES)
    one = spread(world, sessions=sessions)
    played = one.collect(sessions)
    times = Counter(session.position for session in played)
    assert set(times) == set(range(whole))
    assert max(times.values()) <= 2
    begins = played[::sessions]
    assert [session.position for session in begins] == [number * whole // LANES for number in range(LANES)]
    assert [session.stream for session in begins] == [world.stream(split="train", index=n).id for n in range(LANES)]
    sizes = [remembered(session) for session in begins]
    assert sizes[0] == 0
    assert 2 < sum(sizes[1:4]) < sum(sizes[5:])
    later = one.collect(sessions)  # the lanes keep their distances, also over the ends of streams
    assert len({session.position for session in later}) >= 0.7 * whole
    assert not one.player._books.receipts  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("streams", [1, 2])
def test_lanes_that_collect_whole_streams_begin_at_0(world: Environment, streams: int) -> None:
    sessions = streams * length(world)
    one = spread(world, sessions=sessions)
    assert [(position, entries) for _, position, entries in memories(one)] == [(0, ())] * LANES
    played = one.collect(sessions)
    assert Counter(session.position for session in played) == dict.fromkeys(range(length(world)), streams * LANES)


def test_a_later_stream_begins_at_0_with_an_empty_memory_and_no_two_lanes_play_the_same() -> None:
    one = spread(WORLD, sessions=LENGTH + 1)
    played = one.collect(LENGTH + 1)
    assert len(set(stations(played))) == len(played)
    lanes = [played[first : first + LENGTH + 1] for first in range(0, len(played), LENGTH + 1)]
    streams = [{session.stream for session in lane} for lane in lanes]
    assert sum(map(len, streams)) == len(set().union(*streams)) == 2 * LANES
    for number, lane in enumerate(lanes):
        later = [session for session in lane if session.stream == stream(number + LANES)]
        assert [session.position for session in later] == list(range(number * LENGTH // LANES + 1))
        assert all(remembered(session) == 0 for session in later)  # the fake engine never asks


@pytest.mark.parametrize("world", WORLDS)
def test_restored_lanes_go_on_as_if_they_had_not_stopped(world: Environment) -> None:
    one = spread(world, sessions=5)
    one.collect(5)
    positions = list(one.positions())
    following = [(session.stream, session.position, remembered(session)) for session in one.collect(5)]
    fresh = spread(world, sessions=5, seed=9)
    fresh.restore(positions)
    again = [(session.stream, session.position, remembered(session)) for session in fresh.collect(5)]
    assert again == following
    assert memories(fresh) == memories(one)


def test_lanes_begin_the_same_however_they_are_divided_among_actors() -> None:
    world = Shop(seed=4)
    together = memories(spread(world, sessions=12))
    divided = [spread(world, sessions=12, numbers=numbers) for numbers in (range(3), range(3, LANES))]
    assert [memory for one in divided for memory in memories(one)] == together
    assert memories(spread(world, sessions=12, seed=1)) != together


@pytest.mark.parametrize("mode", MODES)
def test_every_credit_mode_takes_readers_whose_writers_were_not_collected(mode: str) -> None:
    played = spread(Recurring(seed=0), sessions=6).collect(6)
    writers = [(session.stream, writer) for session in played for writer in {use.writer for use in session.reads}]
    assert writers
    assert not set(writers) & set(stations(played))
    credit = CreditAssigner(Credit(mode=mode, threshold=-1.0))  # pyright: ignore[reportArgumentType]
    prefixes = credit.prefixes(played)
    segments = [segment for session in played for segment in cut(session)]
    assigned = credit.assign(played, segments, list(map(zeros, segments)), list(map(zeros, prefixes)))
    assert bool(prefixes) == (mode == "linked")  # what such a reader gains is evidence for the tail
    assert {row.credit for row in assigned.rows} == {0.0}
    assert len(assigned.rows) == len(played)
