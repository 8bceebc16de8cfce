"""Transfers by nccl: their order, and which engines are held when one fails. Evaluations: what is played, and by whom.

Fakes in place of Ray, vLLM and nccl.
"""

import asyncio
import itertools
import pickle
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from agile_ray.config import Agent, Memory
from agile_ray.errors import AgileError, LearnerError, SyncError
from agile_ray.evaluation.plays import Part, Play
from agile_ray.record.evaluations import PlayedParts
from agile_ray.record.receipts import Journal
from agile_ray.scripted.guided import Guide
from agile_ray.scripted.head_start import AskingShares
from agile_ray.types import Session
from agile_ray.weights import Probe, WeightsRef
from envs.recurring import LENGTH, Recurring
from rollout import pool as pool_module
from rollout.actor import RolloutActor
from rollout.player import Player
from rollout.pool import RolloutPool, no_bar
from rollout.weights.loader import VersionLoader
from rollout.weights.sync_check import SyncCheck
from tests.fakes.engine import FakeEngine
from tests.fakes.streams import script_rules

Answer = Callable[[], Coroutine[None, None, object]]


@dataclass
class FakeActor:
    """Stands for the handle of a rollout actor: `handle.call.remote(...)` returns what `wait` then runs."""

    engine: FakeEngine = field(default_factory=FakeEngine)

    def __post_init__(self) -> None:
        loader = self.loader = VersionLoader(self.engine, check=SyncCheck(exact=True))
        self.prepare = self._remote(loader.prepare)
        self.serve = self._remote(loader.serve)
        self.give_up = self._remote(lambda why: loader.give_up(SyncError(why)))

    def receive(self, version: int) -> None:
        asyncio.run(self.loader.begin())
        self.engine.version = version
        asyncio.run(self.loader.finish())

    @staticmethod
    def _remote(call: Callable[..., Coroutine[None, None, object]]) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *values: lambda: call(*values))


def run_all(call: str, answers: Sequence[Answer], *, deadline_s: float, meanwhile: object) -> list[object]:
    """Stands for `rollout.waiting.wait`: runs all answers, then raises the first error."""
    found: list[object] = []
    for answer in answers:
        try:
            found.append(asyncio.run(answer()))
        except AgileError as error:
            found.append(error)
    for one in found:
        if isinstance(one, AgileError):
            raise one
    return found


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[FakeActor]:
    monkeypatch.setattr(pool_module, "wait", run_all)
    return [FakeActor(), FakeActor()]


def load(actors: list[FakeActor], transfer: Callable[[], None]) -> None:
    pool = RolloutPool.__new__(RolloutPool)
    pool.handles = actors  # pyright: ignore[reportAttributeAccessIssue]
    pool._settings = SimpleNamespace(deadline_s=1.0)  # pyright: ignore[reportAttributeAccessIssue]
    pool._take_turn = lambda: None
    probe = Probe(ids=np.array([1, 2], np.int32), logprobs=np.array([0, -1], np.float32))
    pool.load(WeightsRef(version=1, buckets=(), blobs=(), probes=(probe,), transfer=transfer))


def test_every_engine_is_probed_and_paused_before_the_learner_sends(actors: list[FakeActor]) -> None:
    def transfer() -> None:
        assert [actor.engine.calls for actor in actors] == [["score", "hold"]] * 2
        for actor in actors:
            actor.receive(1)

    load(actors, transfer)
    assert [actor.engine.calls[-3:] for actor in actors] == [["version", "release", "score"]] * 2


def test_a_transfer_that_never_begins_leaves_every_engine_serving_the_old_version(actors: list[FakeActor]) -> None:
    def transfer() -> None:
        raise LearnerError("a rank died")

    with pytest.raises(LearnerError, match="a rank died"):
        load(actors, transfer)
    for actor in actors:
        assert actor.engine.calls == ["score", "hold", "release"]
        actor.loader.check_serving()


def test_a_transfer_that_fails_half_way_names_the_engines_that_it_holds(actors: list[FakeActor]) -> None:
    def transfer() -> None:
        asyncio.run(actors[1].loader.begin())
        raise LearnerError("a rank died")

    with pytest.raises(SyncError, match=r"^rollout\.load: actor 1: the engine is held .*\(a rank died\)") as caught:
        load(actors, transfer)
    assert "actor 0" not in str(caught.value)
    assert actors[0].engine.calls[-1] == "release"
    assert "release" not in actors[1].engine.calls


def test_an_engine_that_can_not_be_probed_stops_the_transfer(actors: list[FakeActor]) -> None:
    actors[0].engine.fails_in = "score"
    with pytest.raises(AgileError, match="lost"):
        load(actors, lambda: pytest.fail("nothing may be sent"))
    actors[0].loader.check_serving()
    assert actors[1].engine.calls[-1] == "release"


def test_every_actor_spreads_its_own_lanes_by_the_runs_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "wait", run_all)
    told: list[tuple[str, AskingShares, int, int]] = []

    def actor(name: str) -> SimpleNamespace:
        async def spread(shares: AskingShares, *, sessions: int, seed: int) -> None:
            told.append((name, shares, sessions, seed))

        one = RolloutActor(SimpleNamespace(common=SimpleNamespace(sessions=12, seed=5)))  # pyright: ignore[reportArgumentType]
        one._opened_player = SimpleNamespace(spread=spread)  # pyright: ignore[reportAttributeAccessIssue]
        return SimpleNamespace(spread=FakeActor._remote(one.spread))

    pool = RolloutPool.__new__(RolloutPool)
    pool.handles = [actor("first"), actor("second")]  # pyright: ignore[reportAttributeAccessIssue]
    pool._settings = SimpleNamespace(deadline_s=1.0)  # pyright: ignore[reportAttributeAccessIssue]
    shares = AskingShares(kinds={"fact": 0.5}, overall=0.25)
    pool.spread(pickle.loads(pickle.dumps(shares)))
    assert told == [("first", shares, 12, 5), ("second", shares, 12, 5)]


# Evaluations.


def evaluating(monkeypatch: pytest.MonkeyPatch, folder: Path, *, actors: int = 2) -> tuple[RolloutPool, list[Player]]:
    """A pool whose actors are players on fake engines."""
    monkeypatch.setattr(pool_module, "wait", run_all)
    world = Recurring(seed=0)
    players = [
        Player(
            engine=FakeEngine(),
            environment=world,
            rules=script_rules(world, agent=Agent(forced=True, turns=1, turn_tokens=2), memory=Memory()),
            numbers=range(3),
            total=3 * actors,
            temperature=1.0,
            seed=None,
            bought=Journal(folder / "receipts.jsonl").add,
            deadline_s=60.0,
        )
        for _ in range(actors)
    ]

    def handle(player: Player) -> SimpleNamespace:
        async def evaluate(
            plays: Sequence[Play], split: str, greedy: bool, keeps: bool, call: int, guide: Guide | None
        ) -> None:
            await player.evaluate(plays, split=split, greedy=greedy, keeps=keeps, call=call, guide=guide)

        async def report(call: int, seen: int) -> bytes:
            return pickle.dumps(player.report(call, seen))

        return SimpleNamespace(evaluate=FakeActor._remote(evaluate), report=FakeActor._remote(report))

    pool = RolloutPool.__new__(RolloutPool)
    pool.handles = [handle(player) for player in players]  # pyright: ignore[reportAttributeAccessIssue]
    pool._settings = SimpleNamespace(deadline_s=1.0)  # pyright: ignore[reportAttributeAccessIssue]
    pool._environment, pool._bar, pool._calls = world, no_bar, itertools.count()
    pool._take_turn = lambda: None
    return pool, players


def stations(sessions: Sequence[Session]) -> list[tuple[str, int]]:
    return [(session.stream, session.position) for session in sessions]


SESSIONS = 5 * LENGTH // 2
WANTED = [(f"recurring/test/0/{number // LENGTH}", number % LENGTH) for number in range(SESSIONS)]


def test_an_evaluation_returns_all_sessions_in_the_order_of_the_split(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pool, _ = evaluating(monkeypatch, tmp_path)
    for _ in range(2):
        assert stations(pool.evaluate(split="test", sessions=SESSIONS, greedy=True)) == WANTED


@pytest.mark.parametrize("fails_after", [1, LENGTH + 3, 2 * LENGTH + 5])
def test_an_evaluation_that_was_stopped_plays_only_what_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails_after: int
) -> None:
    monkeypatch.setattr("rollout.player.PART_S", -1.0)
    pool, _ = evaluating(monkeypatch, tmp_path, actors=1)
    played: list[int] = []

    class Stopped(PlayedParts):
        def add(self, part: Part) -> None:
            if len(played) == fails_after:
                raise KeyboardInterrupt
            super().add(part)
            played.append(part.index)

    with pytest.raises(KeyboardInterrupt):
        pool.evaluate(split="test", sessions=SESSIONS, greedy=True, parts=Stopped(tmp_path / "parts"))
    pool, players = evaluating(monkeypatch, tmp_path, actors=2)
    kept = PlayedParts(tmp_path / "parts")
    assert kept.sessions == fails_after
    assert stations(pool.evaluate(split="test", sessions=SESSIONS, greedy=True, parts=kept)) == WANTED
    assert sum(player.report(-1, 0).played for player in players) == SESSIONS - fails_after
    again, _ = evaluating(monkeypatch, tmp_path)
    finished = PlayedParts(tmp_path / "parts")
    assert stations(again.evaluate(split="test", sessions=SESSIONS, greedy=True, parts=finished)) == WANTED
