"""Loads a published version into a live engine and checks that the engine serves it.

    probe      score the probes with the old version
    hold       pause the scheduler, drop every cached key and value
    transfer   start, one update per bucket, finish; the receiver loads all buckets at once
    version    label every later token with the version
    release    resume the scheduler
    check      score the probes with the new version, compare (`sync_check`)

Requests in flight are kept. They continue with the new weights, and their tokens carry the new version.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agile_ray.errors import EngineError, SyncError
from agile_ray.types import Float32
from agile_ray.weights import Bucket, Probe, WeightsRef
from rollout.weights.bucket_message import BucketMessage
from rollout.weights.shared_memory import shared_file
from rollout.weights.sync_check import SyncCheck, SyncReport, flat


class ServingEngine(Protocol):
    """What a loader needs from an engine. Every call raises EngineError or DeadlineError when it fails."""

    async def score(self, ids: Sequence[int]) -> Float32: ...

    async def hold(self) -> None: ...

    async def release(self) -> None: ...

    async def start_weight_update(self) -> None: ...

    async def update_weights(self, update_info: dict[str, object]) -> None: ...

    async def finish_weight_update(self) -> None: ...

    async def update_weight_version(self, version: str) -> None: ...


async def load_version(
    engine: ServingEngine, weights: WeightsRef, blobs: Sequence[NDArray[np.uint8]], *, check: SyncCheck
) -> SyncReport:
    """Serve a version.

    Args:
        weights: the version; without buckets if the transport has already moved the bytes (nccl).
        blobs: the buckets' bytes, in the order of `weights.buckets`.
        check: of this engine; it keeps the engine's gap at start-up.

    Raises:
        SyncError: a bucket was refused and the old version is still served, or the check failed.
        EngineError, DeadlineError: the engine failed, or took longer than `cluster.deadline_s`.
    """
    before = await _score_probes(engine, weights.probes)
    await engine.hold()
    try:
        if weights.buckets:
            await _transfer(engine, weights.buckets, blobs)
        await engine.update_weight_version(str(weights.version))
    finally:
        await engine.release()
    after = await _score_probes(engine, weights.probes)
    learner = flat([probe.logprobs for probe in weights.probes])
    return check.check(weights.version, before=before, after=after, learner=learner)


async def _transfer(engine: ServingEngine, buckets: Sequence[Bucket], blobs: Sequence[NDArray[np.uint8]]) -> None:
    if len(buckets) != len(blobs):
        raise SyncError(f"rollout: {len(buckets)} buckets were announced, {len(blobs)} arrived")
    try:
        await engine.start_weight_update()
        for bucket, blob in zip(buckets, blobs, strict=True):
            with shared_file(blob) as path:
                message = BucketMessage.of(bucket, path=path, count=len(buckets))
                await engine.update_weights(message.fields())
        await engine.finish_weight_update()
    except EngineError as error:
        raise SyncError(f"rollout: a weight update was refused: {error}") from error


async def _score_probes(engine: ServingEngine, probes: Sequence[Probe]) -> Float32:
    return flat(await asyncio.gather(*(engine.score(probe.ids.tolist()) for probe in probes)))
