"""Transfers by nccl: their order, and which engines are held when one fails. The pool on fakes, from its own thread.

Fakes in place of Ray, vLLM and nccl.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from agile_ray.errors import AgileError, LearnerError, RankLostError, SyncError
from agile_ray.evaluation.plays import Part
from agile_ray.record import history, store
from agile_ray.record.evaluations import PlayedParts
from agile_ray.record.folder import RunFolder
from agile_ray.record.ledger import audit
from agile_ray.record.recorder import RunRecorder
from agile_ray.types import Assigned, Ending, RunState
from agile_ray.weights import Probe, WeightsRef
from envs.recurring import LENGTH
from rollout import pool as pool_module
from rollout.fleet.lane_files import LaneFiles
from rollout.pool import Background, RolloutPool, no_bar
from rollout.weights.loader import VersionLoader
from rollout.weights.sync_check import SyncCheck
from tests.fakes.engine import FakeEngine
from tests.fakes.fleet import WORLD, CountingExpert, Rig, stations, version
from tests.fakes.parts import UPDATE
from tests.fakes.stored import rows

Answer = Callable[[], Coroutine[None, None, object]]


@dataclass(eq=False)
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


class NoFleet:
    """A fleet whose actors all serve."""

    def __init__(self, actors: list[FakeActor]) -> None:
        self.workers = [SimpleNamespace(handle=actor) for actor in actors]
        self.live: list[int] = []

    async def until_started(self) -> None:
        pass

    def served(self, weights: WeightsRef) -> None:
        self.live.append(weights.version)


def pool_of(actors: list[FakeActor]) -> RolloutPool:
    pool = RolloutPool.__new__(RolloutPool)
    pool._fleet = NoFleet(actors)  # pyright: ignore[reportAttributeAccessIssue]
    pool._played, pool._connect, pool._connected = Background(), None, []
    pool._take_turn = lambda: None
    return pool


def load(actors: list[FakeActor], transfer: Callable[[], None]) -> RolloutPool:
    pool = pool_of(actors)
    pool._settings = SimpleNamespace(deadline_s=1.0)  # pyright: ignore[reportAttributeAccessIssue]
    probe = Probe(ids=np.array([1, 2], np.int32), logprobs=np.array([0, -1], np.float32))
    pool.load(WeightsRef(version=1, buckets=(), blobs=(), probes=(probe,), transfer=transfer))
    return pool


def test_every_engine_is_probed_and_paused_before_the_learner_sends(actors: list[FakeActor]) -> None:
    def transfer() -> None:
        assert [actor.engine.calls for actor in actors] == [["score", "hold"]] * 2
        for actor in actors:
            actor.receive(1)

    pool = load(actors, transfer)
    assert pool._fleet.live == [1]  # pyright: ignore[reportAttributeAccessIssue]
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


def test_a_transfer_that_lost_a_rank_half_way_is_done_again_by_fresh_ones(actors: list[FakeActor]) -> None:
    def transfer() -> None:
        asyncio.run(actors[1].loader.begin())
        raise RankLostError("a rank died")

    with pytest.raises(RankLostError, match="^a rank died$"):
        load(actors, transfer)
    assert actors[1].loader.held is not None
    load(actors, lambda: [actor.receive(1) for actor in actors])
    for actor in actors:
        actor.loader.check_serving()


def test_an_engine_that_can_not_be_probed_stops_the_transfer(actors: list[FakeActor]) -> None:
    actors[0].engine.fails_in = "score"
    with pytest.raises(AgileError, match="lost"):
        load(actors, lambda: pytest.fail("nothing may be sent"))
    actors[0].loader.check_serving()
    assert actors[1].engine.calls[-1] == "release"


def test_the_transport_is_opened_again_if_an_actor_was_replaced(actors: list[FakeActor]) -> None:
    opened: list[list[object]] = []
    pool = pool_of(actors)
    pool.connect(lambda handles: opened.append([*handles]))
    pool._reconnect()
    assert opened == [actors]
    fresh = FakeActor()
    pool._fleet.workers[1] = SimpleNamespace(handle=fresh)  # pyright: ignore[reportAttributeAccessIssue]
    pool._reconnect()
    assert opened == [actors, [actors[0], fresh]]
    pool.connect(lambda handles: opened.append([*handles]))  # from other ranks
    assert len(opened) == 3


# The whole pool, on a fleet of fakes.


class Rented(RolloutPool):
    """A pool whose actors are fakes."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self._settings = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
            run_folder=folder, sessions=rig.sessions, rollout=SimpleNamespace(actors=rig.actors)
        )
        self._environment, self._bar, self._take_turn = WORLD, no_bar, lambda: None
        self._files, self._played, self._fleet = LaneFiles(), Background(), rig.fleet
        self._starting = self._played.begin(rig.fleet.start())
        self.wait_until_ready()

    def shutdown(self) -> None:
        async def end() -> None:
            await self._fleet.close()
            for worker in self.rig.workers:
                worker.player.close()
            await asyncio.sleep(0)

        if not self._played.is_closed:
            self._played.close(end())


SESSIONS = 5 * LENGTH // 2
WANTED = [(f"recurring/test/0/{number // LENGTH}", number % LENGTH) for number in range(SESSIONS)]


def evaluated(rig: Rig) -> int:
    return sum(worker.player._evaluated for worker in rig.workers)


def test_an_evaluation_returns_all_sessions_in_the_order_of_the_split(tmp_path: Path) -> None:
    pool = Rented(Rig(), tmp_path)
    for _ in range(2):
        assert stations(pool.evaluate(split="test", sessions=SESSIONS, greedy=True)) == WANTED
    pool.shutdown()


@pytest.mark.parametrize("fails_after", [1, LENGTH + 3, 2 * LENGTH + 5])
def test_an_evaluation_that_was_stopped_plays_only_what_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails_after: int
) -> None:
    monkeypatch.setattr("rollout.player.PART_S", -1.0)
    played: list[int] = []

    class Stopped(PlayedParts):
        def add(self, part: Part) -> None:
            if len(played) == fails_after:
                raise OSError(28, "No space left on device")
            super().add(part)
            played.append(part.index)

    pool = Rented(Rig(actors=1), tmp_path)
    with pytest.raises(OSError, match="No space left"):
        pool.evaluate(split="test", sessions=SESSIONS, greedy=True, parts=Stopped(tmp_path / "parts"))
    pool.shutdown()
    kept = PlayedParts(tmp_path / "parts")
    assert kept.sessions == fails_after
    pool = Rented(rig := Rig(actors=2), tmp_path)
    assert stations(pool.evaluate(split="test", sessions=SESSIONS, greedy=True, parts=kept)) == WANTED
    assert evaluated(rig) == SESSIONS - fails_after
    finished = PlayedParts(tmp_path / "parts")
    assert stations(pool.evaluate(split="test", sessions=SESSIONS, greedy=True, parts=finished)) == WANTED
    pool.shutdown()


@pytest.mark.parametrize("max_age", [0, 2])
@pytest.mark.parametrize("links", [True, False])
def test_a_run_that_resumes_after_play_beyond_its_checkpoint_pays_no_ask_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_age: int, links: bool
) -> None:
    """A checkpoint after two batches, two more batches stored, a kill in the middle of a fifth; then eight in all."""
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(95, "no links")))
    run, expert = RunFolder(tmp_path), CountingExpert()

    def begin() -> tuple[Rented, RunRecorder]:
        rig = Rig(max_age=max_age, total=5, batches=8, expert=expert, journals=run)
        return Rented(rig, tmp_path), RunRecorder(run)

    def train(pool: Rented, recorder: RunRecorder, batches: range) -> None:
        pool.load(version(batches.start))
        for number in batches:
            sessions = pool.collect()
            assert {one.ending for one in sessions} == {Ending.DONE}
            state = RunState(imitation_steps=0, iteration=number + 1, version=number + 1)
            pool.load(version(number + 1))
            with recorder.timed("collect"):
                pass
            assigned = Assigned(rows=rows(*sessions, credit=0.0), metrics={})
            recorder.iteration(state, sessions=sessions, assigned=assigned, update=UPDATE)
            if number == 1:
                (tmp_path / "lanes").mkdir()
                pool.save(tmp_path / "lanes", earlier=None)

    pool, recorder = begin()
    train(pool, recorder, range(4))
    pool._run(pool_module._done(pool._fleet.want))
    while 5 not in run.journals().values():  # until somebody has asked in the fifth
        time.sleep(0.01)
    pool.shutdown()
    paid = expert.asked.total()

    pool, recorder = begin()
    pool.restore(tmp_path / "lanes")
    recorder.resume(RunState(imitation_steps=0, iteration=2, version=2))
    train(pool, recorder, range(2, 8))
    pool.shutdown()
    recorder.close()
    assert expert.asked.total() > paid
    found = [store.outcomes(run, iteration) for iteration in range(1, 9)]
    assert len({station for sessions in found for station in stations(sessions)}) == 8 * 5 * 3
    asked = [receipt.key for sessions in found for one in sessions for receipt in (*one.receipts, *one.abandoned)]
    assert len(asked) == len(set(asked))
    unsure = expert.asked.total() - len(asked)
    assert 0 <= unsure <= pool._fleet.counts["unsure_asks"] <= 5
    assert not run.journals()
    ledger = audit(run, history.read(run.history))
    assert ledger.trained.asks + ledger.abandoned.asks == len(asked)
