"""The rollout pool on real Ray: one actor, its engine, and the built-in shop."""

import os
import pickle
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray

from agile_ray.agent.memory import Entry
from agile_ray.config import Agent, Cluster, Env, Learner, Loop, Model, Rollout, Run, RunConfig
from agile_ray.errors import ConfigError, SyncError
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import clear_journals, read_journals
from agile_ray.types import Session
from agile_ray.weights import WeightsRef
from launch.cluster.ray_cluster import cluster
from rollout.fleet.messages import LanePosition
from rollout.pool import RolloutPool
from rollout.settings import RolloutSettings
from tests.integration.rollout_model import copy_of, make_folder, pack, perturb, probes_of, stale_parts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LANES, SESSIONS = 6, 3


@dataclass(slots=True)
class Rig:
    """A pool, the model it serves, and the versions it was given."""

    pool: RolloutPool
    config: RunConfig
    folder: Path
    version: int = 0


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("model")
    make_folder(folder, tied=True)
    config = RunConfig(
        run=Run(name="pool", folder=folder),
        model=Model(path=folder),
        env=Env(name="shop"),
        agent=Agent(turns=4, turn_tokens=8, session_tokens=200),
        learner=Learner(micro_batch_tokens=256),
        rollout=Rollout(kv_cache_gib=0.25),
        loop=Loop(lanes=LANES, sessions_per_lane=SESSIONS),
        cluster=Cluster(deadline_s=120.0),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_RPC_BASE_PATH", str(folder))  # vLLM does not remove its sockets
        with cluster(config.cluster, cpus=8):  # which unlinks the shared memory of an actor that a test kills
            pool = RolloutPool(RolloutSettings.of(config), model=folder, logs=folder / "logs")
            pool.wait_until_ready()
            yield Rig(pool=pool, config=config, folder=folder)
            pool.shutdown()


def positions_in(file: Path) -> list[LanePosition]:
    with file.open("rb") as opened:
        return [pickle.load(opened) for _ in range(LANES)]


def positions(rig: Rig, folder: Path) -> list[tuple[int, int, str, int, tuple[Entry, ...]]]:
    """Of every lane what a checkpoint in a new folder holds, without vectors."""
    folder.mkdir()
    rig.pool.save(folder, earlier=None)
    [file] = folder.iterdir()
    return [
        (one.number, one.round, one.state.stream, one.state.position, one.state.memory.entries)
        for one in positions_in(file)
    ]


def written(sessions: list[Session]) -> list[list[int]]:
    return [turn.completion_ids.tolist() for session in sessions for turn in session.turns]


def test_every_lane_plays_its_sessions_and_continues_from_its_position(rig: Rig) -> None:
    first, second = rig.pool.collect(), rig.pool.collect()
    for sessions, start in ((first, 0), (second, SESSIONS)):
        assert len(sessions) == LANES * SESSIONS
        assert [session.position for session in sessions] == list(range(start, start + SESSIONS)) * LANES
    assert len({session.stream for session in first}) == LANES
    assert {version for session in first for turn in session.turns for version in turn.versions.tolist()} == {0}


def test_every_ask_of_a_collection_is_in_the_journal_before_it_is_stored(rig: Rig) -> None:
    run = RunFolder.of(rig.config)
    clear_journals(run, 10**6)
    bought = [receipt for session in rig.pool.collect() for receipt in session.receipts]
    written_down = read_journals(run.journals()).receipts
    assert sorted(written_down, key=lambda receipt: receipt.key) == sorted(bought, key=lambda receipt: receipt.key)


def test_prompts_extend_what_was_sampled(rig: Rig) -> None:
    for session in rig.pool.collect():
        context: list[int] = []
        for turn in session.turns:
            assert turn.prompt_ids.tolist()[: len(context)] == context
            context = [*turn.prompt_ids.tolist(), *turn.completion_ids.tolist()]


def test_a_greedy_evaluation_is_the_same_twice_and_does_not_move_the_lanes(rig: Rig, tmp_path: Path) -> None:
    before = positions(rig, tmp_path / "before")
    first = rig.pool.evaluate(split="test", sessions=20, greedy=True)
    second = rig.pool.evaluate(split="test", sessions=20, greedy=True)
    assert len(first) == 20
    assert written(first) == written(second)
    assert [(session.stream, session.position) for session in first] == sorted(
        ((session.stream, session.position) for session in first), key=lambda pair: pair[1]
    )
    assert positions(rig, tmp_path / "after") == before


def test_a_checkpoint_puts_every_lane_back(rig: Rig, tmp_path: Path) -> None:
    rig.pool.save(tmp_path, earlier=None)
    first = rig.pool.collect()
    rig.pool.restore(tmp_path)
    again = rig.pool.collect()
    played = [[(s.stream, s.position, s.question_id) for s in sessions] for sessions in (first, again)]
    assert played[0] == played[1]


def test_a_checkpoint_of_other_lanes_is_refused(rig: Rig, tmp_path: Path) -> None:
    rig.pool.save(tmp_path, earlier=None)
    [file] = tmp_path.iterdir()
    kept = positions_in(file)
    file.write_bytes(b"".join(pickle.dumps(one) for one in kept[1:]))
    with pytest.raises(ConfigError, match=rf"has {LANES - 1} lanes, loop\.lanes is {LANES}; set it as it was"):
        rig.pool.restore(tmp_path)


def test_a_version_is_fetched_from_the_object_store_and_checked(rig: Rig, tmp_path: Path) -> None:
    model = make_folder(tmp_path, tied=True)
    old = copy_of(model)
    perturb(model, seed=3)
    probes = probes_of(model)
    stale = {
        name: old[name] if name.startswith(stale_parts(model)["layer"]) else t for name, t in copy_of(model).items()
    }
    for version, parameters in ((1, stale), (2, copy_of(model))):
        buckets, blobs = pack(parameters)
        references = tuple(ray.put(blob) for blob in blobs)
        weights = WeightsRef(version=version, buckets=tuple(buckets), blobs=references, probes=probes)
        if version == 1:
            with pytest.raises(SyncError, match="version 1 is not what the engine serves"):
                rig.pool.load(weights)
        else:
            rig.pool.load(weights)
    assert rig.pool.collect()[0].turns[0].versions[0] == 2


def test_a_folder_without_a_model_is_one_clear_line(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.path: [^\n]+ holds no tokenizer[^\n]*$"):
        RolloutPool(RolloutSettings.of(rig.config), model=tmp_path, logs=tmp_path).wait_until_ready()


@pytest.mark.long
def test_a_killed_actor_is_replaced_by_one_that_serves_the_live_weights_and_its_engine_ends(rig: Rig) -> None:
    workers = [process for process in psutil.process_iter(["cmdline"]) if _is_actor_of_this_test(process)]
    actor, engine = next((worker, worker.children(recursive=True)) for worker in workers if worker.children())
    assert len(engine) >= 2  # the engine's core and its worker
    os.kill(actor.pid, signal.SIGKILL)
    sessions = rig.pool.collect()
    assert len(sessions) == LANES * SESSIONS
    assert {version for session in sessions for turn in session.turns for version in turn.versions.tolist()} == {2}
    assert rig.pool.counts()["replaced"] == 1
    _, alive = psutil.wait_procs(engine, timeout=100)
    assert not alive


def _is_actor_of_this_test(process: psutil.Process) -> bool:
    title = " ".join(process.info["cmdline"] or ())
    return title.startswith("ray::RolloutActor") and os.getpid() in [parent.pid for parent in process.parents()]


def test_shutdown_may_be_called_twice(rig: Rig) -> None:
    rig.pool.shutdown()
    rig.pool.shutdown()
