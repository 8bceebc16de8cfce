"""Which lane plays which sessions, in the recurring environment on a fake engine that never answers."""

import asyncio
from pathlib import Path

import pytest

from agile_ray.config import Agent, Memory
from agile_ray.errors import ConfigError, EngineError
from agile_ray.evaluation.plays import Play
from agile_ray.record.receipts import Journal
from agile_ray.types import Session
from envs.recurring import LENGTH, Recurring
from rollout.player import Player
from tests.fakes.engine import FakeEngine
from tests.fakes.streams import script_rules

WORLD = Recurring(seed=0)
RULES = script_rules(WORLD, agent=Agent(forced=True, turns=1, turn_tokens=2), memory=Memory())


def player(folder: Path, *, engine: FakeEngine | None = None, numbers: range = range(2), seed: int = 0) -> Player:
    return Player(
        engine=engine or FakeEngine(),
        environment=Recurring(seed=seed),
        rules=RULES,
        numbers=numbers,
        total=4,
        temperature=1.0,
        price=300,
        bought=Journal(folder / "receipts.jsonl").add,
    )


def stations(sessions: list[Session]) -> list[tuple[str, int]]:
    return [(session.stream, session.position) for session in sessions]


def standing(player: Player) -> list[tuple[int, int, str, int]]:
    """The positions of lanes without their memories, which contain arrays."""
    return [(one.number, one.round, one.state.stream, one.state.position) for one in player.positions()]


def stream(index: int, *, split: str = "train") -> str:
    return f"recurring/{split}/0/{index}"


def test_lanes_continue_from_call_to_call_and_sessions_are_returned_lane_by_lane(tmp_path: Path) -> None:
    one = player(tmp_path, numbers=range(2, 4))
    assert stations(asyncio.run(one.collect(2))) == [(stream(n), position) for n in (2, 3) for position in (0, 1)]
    assert stations(asyncio.run(one.collect(1))) == [(stream(2), 2), (stream(3), 2)]
    assert one.played == 2


def test_a_lane_continues_with_a_stream_that_no_other_lane_plays(tmp_path: Path) -> None:
    sessions = asyncio.run(player(tmp_path).collect(LENGTH + 1))
    assert stations(sessions)[LENGTH] == (stream(4), 0)  # lane 0 of 4
    assert stations(sessions)[-1] == (stream(5), 0)


def test_restored_lanes_play_the_same_sessions_again(tmp_path: Path) -> None:
    one = player(tmp_path)
    asyncio.run(one.collect(LENGTH - 1))
    positions, before = one.positions(), standing(one)
    first = asyncio.run(one.collect(3))
    one.restore(positions)
    assert stations(asyncio.run(one.collect(3))) == stations(first)
    other = player(tmp_path)
    other.restore(positions)
    assert standing(other) == before
    assert stations(asyncio.run(other.collect(3))) == stations(first)


def test_positions_in_other_streams_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume: lane 0 played stream recurring/train/0/0 .* recurring/train/1/0"):
        player(tmp_path, seed=1).restore(player(tmp_path).positions())


@pytest.mark.parametrize("greedy", [True, False])
def test_an_evaluation_plays_in_the_given_order_and_does_not_move_the_lanes(tmp_path: Path, greedy: bool) -> None:
    engine = FakeEngine()
    one = player(tmp_path, engine=engine)
    before = standing(one)
    chosen = [Play(index=5, sessions=2), Play(index=1, sessions=1), Play(index=3, sessions=3)]
    played = asyncio.run(one.evaluate(chosen, split="test", greedy=greedy))
    wanted = [(stream(play.index, split="test"), position) for play in chosen for position in range(play.sessions)]
    assert stations(played) == wanted
    assert engine.calls[0] == "forget"
    assert standing(one) == before


def test_an_engine_that_fails_ends_the_collection(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="lost"):
        asyncio.run(player(tmp_path, engine=FakeEngine(fails_in="generate")).collect(1))
