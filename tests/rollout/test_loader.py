"""A version is loaded completely and checked, or the engine keeps serving the old one."""

import asyncio
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from agile_ray.errors import EngineError, SyncError
from agile_ray.weights import Bucket, Probe, TensorSpec, WeightsRef
from rollout.weights.bucket_message import BucketMessage
from rollout.weights.loader import VersionLoader
from rollout.weights.sync_check import SyncCheck, SyncReport
from tests.fakes.engine import FakeEngine

BLOBS = [np.arange(8, dtype=np.uint8), np.arange(4, dtype=np.uint8)]
IDS = np.array([3, 4, 5], np.int32)


def bucket(index: int, blob: NDArray[np.uint8]) -> Bucket:
    spec = TensorSpec(name=f"part.{index}", dtype="float32", shape=(1, blob.size // 4), offset_bytes=0)
    return Bucket(index=index, size_bytes=blob.size, checksum=zlib.crc32(blob.data), tensors=(spec,))


BUCKETS = tuple(bucket(index, blob) for index, blob in enumerate(BLOBS))


def version(number: int, *, buckets: tuple[Bucket, ...] = BUCKETS) -> WeightsRef:
    """A version under which every token has logprob minus its number."""
    probe = Probe(ids=IDS, logprobs=np.array([0, -number, -number], np.float32))
    return WeightsRef(version=number, buckets=buckets, blobs=(), probes=(probe, probe))


def loader_of(engine: FakeEngine) -> VersionLoader:
    return VersionLoader(engine, check=SyncCheck(exact=True))


def load(
    engine: FakeEngine, loader: VersionLoader | None = None, *, buckets: tuple[Bucket, ...] = BUCKETS, number: int = 1
) -> SyncReport:
    """Load a version by a loader, a new one unless given."""
    weights = version(number, buckets=buckets)
    return asyncio.run((loader or loader_of(engine)).load(weights, BLOBS[: len(buckets)]))


def test_a_version_is_loaded_while_the_scheduler_is_paused_and_probed_before_and_after() -> None:
    engine = FakeEngine()
    report = load(engine)
    probes = ["score", "score"]
    assert engine.calls == [*probes, "hold", "start", "update", "update", "finish", "version", "release", *probes]
    assert (report.version, report.gap.largest, report.moved.mean) == (1, 0.0, 1.0)


def test_the_engine_gets_every_bucket_with_its_bytes() -> None:
    engine = FakeEngine()
    load(engine)
    assert [message.bucket() for message, _ in engine.received] == list(BUCKETS)
    assert [message.count for message, _ in engine.received] == [2, 2]
    assert [content for _, content in engine.received] == [blob.tobytes() for blob in BLOBS]


@pytest.mark.parametrize("call", ["start", "update"])
def test_an_update_that_is_refused_before_the_model_is_touched_leaves_the_old_version_serving(call: str) -> None:
    engine = FakeEngine(fails_in=call)
    loader = loader_of(engine)
    with pytest.raises(SyncError, match="a weight update was refused: lost"):
        load(engine, loader)
    assert engine.calls[-2:] == [call, "release"]
    assert engine.version == 0
    loader.check_serving()


@pytest.mark.parametrize("call", ["finish", "version", "release"])
def test_an_engine_that_may_serve_parts_of_a_version_is_held_until_a_whole_one_is_loaded(call: str) -> None:
    engine = FakeEngine(fails_in=call)
    loader = loader_of(engine)
    with pytest.raises((SyncError, EngineError), match="lost"):
        load(engine, loader)
    assert engine.calls[-1] == "hold"
    with pytest.raises(EngineError, match=r"held since version 1 failed to load \(.*lost\).* once a whole version"):
        loader.check_serving()

    engine.fails_in = "update"
    with pytest.raises(SyncError):
        load(engine, loader, number=2)
    assert engine.calls[-1] == "update"  # and no release
    with pytest.raises(EngineError, match="held since version 1"):
        loader.check_serving()

    engine.fails_in = None
    engine.calls.clear()
    load(engine, loader, number=3)
    loader.check_serving()
    assert engine.calls[0] == "start"  # it is paused, and there is no version to probe
    assert engine.version == 3


def test_an_engine_that_fails_the_check_is_held() -> None:
    engine = FakeEngine(ignores_versions=True)
    loader = loader_of(engine)
    with pytest.raises(SyncError, match="version 1 is not what the engine serves"):
        load(engine, loader)
    assert engine.calls[-1] == "hold"
    with pytest.raises(EngineError, match="held since version 1"):
        loader.check_serving()


def test_an_engine_that_does_not_pause_serves_the_old_version() -> None:
    engine = FakeEngine(fails_in="hold")
    loader = loader_of(engine)
    with pytest.raises(EngineError, match="lost"):
        load(engine, loader)
    assert engine.calls[-2:] == ["hold", "release"]
    loader.check_serving()


def test_a_version_that_the_learner_sends_is_probed_before_it_is_sent() -> None:
    engine = FakeEngine()
    loader, weights = loader_of(engine), version(1, buckets=())

    async def send() -> SyncReport:
        await loader.prepare(weights)
        await loader.begin()
        engine.version = 1  # as nccl does: the weights are in place before they are named
        await loader.finish()
        return await loader.serve(weights)

    report = asyncio.run(send())
    probes = ["score", "score"]
    assert engine.calls == [*probes, "hold", "start", "finish", "version", "release", *probes]
    assert (report.old.mean, report.moved.mean, report.gap.mean) == (1.0, 1.0, 0.0)


def test_a_version_that_the_learner_announces_and_does_not_send_is_refused() -> None:
    engine = FakeEngine()
    loader, weights = loader_of(engine), version(1, buckets=())

    async def send_nothing() -> None:
        await loader.prepare(weights)
        await loader.serve(weights)

    with pytest.raises(SyncError, match="version 1 was announced, its bytes did not come"):
        asyncio.run(send_nothing())
    assert engine.calls[-1] == "release"
    loader.check_serving()


def test_a_transfer_that_ends_half_way_leaves_the_engine_held() -> None:
    engine = FakeEngine()
    loader, weights = loader_of(engine), version(1, buckets=())

    async def begin() -> str | None:
        await loader.prepare(weights)
        await loader.begin()
        return await loader.give_up(SyncError("rank 0 died"))

    held = asyncio.run(begin())
    assert held is not None
    assert "rank 0 died" in held
    assert "release" not in engine.calls


def test_a_bucket_whose_bytes_did_not_arrive_is_refused_before_anything_is_sent() -> None:
    engine = FakeEngine()
    with pytest.raises(SyncError, match="3 buckets were announced, 2 arrived"):
        load(engine, buckets=(*BUCKETS, bucket(2, BLOBS[0])))
    assert engine.calls == ["score", "score", "hold", "release"]


def test_an_engine_that_still_serves_the_old_version_is_refused() -> None:
    with pytest.raises(SyncError, match="version 1 is not what the engine serves"):
        load(FakeEngine(ignores_versions=True))


def test_a_message_of_plain_values_rebuilds_its_bucket() -> None:
    message = BucketMessage.of(BUCKETS[1], path="/proc/1/fd/9", count=2)
    assert BucketMessage(**message.fields()).bucket() == BUCKETS[1]  # pyright: ignore[reportArgumentType]
    assert message.fields() == {
        "path": "/proc/1/fd/9",
        "count": 2,
        "index": 1,
        "size_bytes": 4,
        "checksum": zlib.crc32(BLOBS[1].data),
        "tensors": [("part.1", "float32", [1, 1], 0)],
    }
