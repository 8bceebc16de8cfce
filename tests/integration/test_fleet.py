"""The dispatch of lanes on real Ray, with a script in place of vLLM: one actor is killed, another one stopped."""

import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from agile_ray.config import Agent, Cluster, Env, Learner, Loop, Memory, Model, Rollout, Run, RunConfig
from agile_ray.errors import AgileError
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import Journals, read_journals
from agile_ray.types import Receipt
from agile_ray.weights import WeightsRef
from envs.recurring import Recurring
from launch.cluster.room import reserve
from rollout import pool as pool_module
from rollout.actor import RolloutActor
from rollout.fleet import dispatch
from rollout.fleet.in_order import InOrder
from rollout.fleet.messages import Orders
from rollout.player import Player
from rollout.pool import RolloutPool
from rollout.settings import RolloutSettings
from tests.fakes.engine import FakeEngine
from tests.fakes.fleet import SlowPolicy
from tests.fakes.streams import script_rules

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

LANES, SESSIONS, CPUS = 6, 4, 4


class _Rig:
    """What `SlowPolicy` needs."""

    def __init__(self) -> None:
        self.turns, self.broken = 0, {}

    def delay(self) -> float:
        return 0.02


class ScriptedActor(RolloutActor):
    """A rollout actor that plays by a script, and tells its process id by a file."""

    async def start(self) -> None:
        (self._settings.log.parent / f"{self._settings.index}.{self._settings.hired}").write_text(str(os.getpid()))
        self.fake = FakeEngine()
        self._open_player()

    def _open_player(self) -> None:
        common, engine = self._settings.common, self.fake

        class Scripted(Player):
            def _seating(self, *, seats: int, greedy: bool) -> SlowPolicy:
                del seats, greedy
                return SlowPolicy(_Rig(), engine, None)

        world = Recurring(seed=0)
        self._opened_player = Scripted(
            engine=engine,
            environment=world,
            rules=script_rules(world, agent=Agent(), memory=Memory(threshold=0.65)),
            total=common.lanes,
            sessions=common.sessions,
            seats=common.seats,
            temperature=1.0,
            seed=None,
            books=Journals(RunFolder(common.run_folder), self._settings.writer),
            deadline_s=common.deadline_s,
        )

    async def load(self, weights: WeightsRef) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.fake.version = weights.version

    async def sleep(self) -> None:
        pass

    async def wake(self) -> None:
        pass

    async def shutdown(self) -> None:
        pass


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutPool]:
    monkeypatch.setattr(pool_module, "RolloutActor", ScriptedActor)
    monkeypatch.setattr(dispatch, "HEARTBEAT_S", 10.0)
    config = RunConfig(
        run=Run(name="fleet", folder=tmp_path),
        model=Model(path=tmp_path),
        env=Env(name="recurring"),
        learner=Learner(micro_batch_tokens=512),
        rollout=Rollout(actors=2, seats=2),
        loop=Loop(lanes=LANES, sessions_per_lane=SESSIONS, max_age=1, iterations=9),
        cluster=Cluster(deadline_s=60.0),
    )
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    try:
        room = reserve(config, engines=2, ranks=0)
        one = RolloutPool(RolloutSettings.of(config), model=tmp_path, logs=tmp_path, places=room.engines)
        one.wait_until_ready()
        yield one
        one.shutdown()
        room.close()
    finally:
        ray.shutdown()


class NotingActor(RolloutActor):
    """A rollout actor that only notes the orders that it was to carry out."""

    def __init__(self) -> None:
        self.carried: list[int] = []
        self._orders = InOrder(lambda orders: self.carried.append(orders.number))

    async def numbers(self) -> list[int]:
        return self.carried


@pytest.mark.usefixtures("pool")
def test_orders_are_carried_out_in_order_though_ray_delivers_large_ones_late() -> None:
    actor = ray.remote(NotingActor).remote()
    ray.get(actor.numbers.remote(), timeout=60.0)
    large = Receipt(key="a/train/0/0#0#0", price=0, source="", latency_s=0.0, advice="x" * 300_000, answer="")
    sent = [
        Orders(number=number, allowed=0, paused=False, bought=(large,) if number % 2 else ()) for number in range(1, 61)
    ]
    ray.get([actor.order.remote(pickle.dumps(orders)) for orders in sent], timeout=60.0)
    assert ray.get(actor.numbers.remote(), timeout=60.0) == [*range(1, 61)]
    ray.kill(actor)


def process(folder: Path, index: int, hired: int) -> int:
    return int((folder / f"{index}.{hired}").read_text())


def version(number: int) -> WeightsRef:
    return WeightsRef(version=number, buckets=(), blobs=(), probes=())


def test_batches_go_on_whatever_happens_to_the_actors(pool: RolloutPool, tmp_path: Path) -> None:
    pool.load(version(0))
    asked: list[str] = []
    for batch in range(5):
        if batch == 1:
            os.kill(process(tmp_path, 0, 0), signal.SIGKILL)
        if batch == 2:
            os.kill(process(tmp_path, 1, 0), signal.SIGSTOP)
        sessions = pool.collect()
        assert [session.position for session in sessions] == LANES * [*range(batch * SESSIONS, (batch + 1) * SESSIONS)]
        assert {batch - int(one) for session in sessions for turn in session.turns for one in turn.versions} <= {0, 1}
        asked += [receipt.key for one in sessions for receipt in (*one.receipts, *one.abandoned)]
        pool.load(version(batch + 1))
    counts = pool.counts()
    assert counts["replaced"] == 2
    assert len(asked) == len(set(asked))
    bought = read_journals(RunFolder(tmp_path / "fleet").journals())
    assert set(asked) <= {receipt.key for receipt in bought.receipts}
    end = time.monotonic() + 100  # the stopped process is gone, too
    while _runs(process(tmp_path, 1, 0)):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert len(pool.evaluate(split="test", sessions=30, greedy=False)) == 30


@pytest.mark.long
def test_an_actor_that_is_lost_asleep_comes_back_in_its_place_once_the_engines_wake(
    pool: RolloutPool, tmp_path: Path
) -> None:
    pool.load(version(0))
    pool.sleep()
    os.kill(process(tmp_path, 0, 0), signal.SIGKILL)
    time.sleep(5)
    assert not (tmp_path / "0.1").exists()
    pool.wake()
    assert len(pool.collect()) == LANES * SESSIONS
    assert pool.counts()["replaced"] == 1
    end = time.monotonic() + 30
    while not (tmp_path / "0.1").exists():
        assert time.monotonic() < end
        time.sleep(0.2)
    assert ray.available_resources().get("CPU", 0.0) == CPUS - 2  # it holds no room beside the run's own


@pytest.mark.long
def test_an_actor_that_does_not_start_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: RolloutPool
) -> None:
    del pool

    class Broken(ScriptedActor):
        async def start(self) -> None:
            raise AgileError("no engine here")

    monkeypatch.setattr(pool_module, "RolloutActor", Broken)
    config = RunConfig(run=Run(name="b", folder=tmp_path), model=Model(path=tmp_path), env=Env(name="recurring"))
    with pytest.raises(AgileError, match="no engine here"):
        RolloutPool(RolloutSettings.of(config), model=tmp_path, logs=tmp_path).wait_until_ready()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except OSError:
        return False
