"""The order of a transfer by nccl, and which engines are held when it fails. Fakes in place of Ray, vLLM and nccl."""

import asyncio
import pickle
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from agile_ray.errors import AgileError, LearnerError, SyncError
from agile_ray.scripted.head_start import AskingShares
from agile_ray.weights import Probe, WeightsRef
from rollout import pool as pool_module
from rollout.actor import RolloutActor
from rollout.pool import RolloutPool
from rollout.weights.loader import VersionLoader
from rollout.weights.sync_check import SyncCheck
from tests.fakes.engine import FakeEngine

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


def run_all(call: str, answers: Sequence[Answer], *, deadline_s: float, meanwhile: None) -> list[object]:
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
