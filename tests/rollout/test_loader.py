"""A version is loaded completely and checked, or the engine keeps serving the old one."""

import asyncio
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from agile_ray.errors import SyncError
from agile_ray.weights import Bucket, Probe, TensorSpec, WeightsRef
from rollout.weights.bucket_message import BucketMessage
from rollout.weights.loader import load_version
from rollout.weights.sync_check import SyncCheck, SyncReport
from tests.fakes.engine import FakeEngine

BLOBS = [np.arange(8, dtype=np.uint8), np.arange(4, dtype=np.uint8)]
IDS = np.array([3, 4, 5], np.int32)


def bucket(index: int, blob: NDArray[np.uint8]) -> Bucket:
    spec = TensorSpec(name=f"part.{index}", dtype="float32", shape=(1, blob.size // 4), offset_bytes=0)
    return Bucket(index=index, size_bytes=blob.size, checksum=zlib.crc32(blob.data), tensors=(spec,))


BUCKETS = tuple(bucket(index, blob) for index, blob in enumerate(BLOBS))


def load(engine: FakeEngine, *, buckets: tuple[Bucket, ...] = BUCKETS, version: int = 1) -> SyncReport:
    """Load a version under which the logprob of every token is minus the version."""
    probe = Probe(ids=IDS, logprobs=np.array([0, -version, -version], np.float32))
    weights = WeightsRef(version=version, buckets=buckets, blobs=(), probes=(probe, probe))
    return asyncio.run(load_version(engine, weights, BLOBS[: len(buckets)], check=SyncCheck(exact=True)))


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


def test_without_buckets_the_version_is_only_set_and_checked() -> None:
    engine = FakeEngine()
    load(engine, buckets=())
    assert engine.calls == ["score", "score", "hold", "version", "release", "score", "score"]


@pytest.mark.parametrize("call", ["start", "update", "finish"])
def test_a_refused_update_resumes_the_scheduler_and_keeps_the_old_version(call: str) -> None:
    engine = FakeEngine(fails_in=call)
    with pytest.raises(SyncError, match="a weight update was refused: lost"):
        load(engine)
    assert engine.calls[-2:] == [call, "release"]
    assert engine.version == 0


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
