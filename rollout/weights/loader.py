"""Loads published versions into a live engine and checks that the engine serves them.

    prepare    score the probes with the old version; pause the scheduler, drop every cached key and value
    transfer   start, one update per bucket, finish; the receiver loads all buckets at once
    serve      name the version on every token that follows; resume the scheduler; score the probes with the new
               version, compare (`sync_check`)

With the transport `nccl` the learner does the transfer, between `prepare` and `serve`, and it overwrites the model from
`start` on; with `ray_shm` nothing but `finish` touches the model.

Requests in flight are kept. They continue with the new weights, and their tokens name the new version.

An update that fails before the model is touched leaves the old version serving. One that fails later leaves the engine
held: it takes no request until a whole version is loaded, and says so.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agile_ray.errors import AgileError, EngineError, SyncError
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


class _State(Enum):
    SERVING = auto()
    PAUSED = auto()  # the old version is whole
    LOADING = auto()  # the model may hold parts of two versions
    WHOLE = auto()  # the new version is loaded


class VersionLoader:
    """Loads versions into one engine, one at a time."""

    def __init__(self, engine: ServingEngine, *, check: SyncCheck) -> None:
        """`check`: of this engine; it remembers the engine's gap at start-up."""
        self._engine = engine
        self._check = check
        self._state = _State.SERVING
        self._version = 0  # that is served or being loaded
        self._before = np.empty(0, dtype=np.float32)
        self.held: str | None = None
        """Why the engine takes no requests; None if it takes them."""

    def check_serving(self) -> None:
        """Refuse a request to an engine that is held.

        Raises:
            EngineError: it is held; the message says since when and why.
        """
        if self.held is not None:
            raise EngineError(f"rollout: {self.held}")

    async def load(self, weights: WeightsRef, blobs: Sequence[NDArray[np.uint8]]) -> SyncReport:
        """Serve a version whose bytes have come.

        Args:
            weights: the version.
            blobs: the buckets' bytes, in the order of `weights.buckets`.

        Raises:
            SyncError: a bucket was refused, or the check failed; the message says whether the engine is held.
            EngineError, DeadlineError: the engine failed, or took longer than `cluster.deadline_s`.
        """
        await self.prepare(weights)
        try:
            await self._transfer(weights.buckets, blobs)
        except BaseException as error:
            await self.give_up(error)
            raise
        return await self.serve(weights)

    async def prepare(self, weights: WeightsRef) -> None:
        """Score the probes with the old version, then pause the scheduler.

        Raises:
            EngineError, DeadlineError: the engine failed and is as it was, or took longer than `cluster.deadline_s`.
        """
        if self.held is not None:  # paused already, and without a whole version to score
            self._before = np.full_like(_learner(weights), np.nan)
        else:
            self._before = await _score_probes(self._engine, weights.probes)
            self._state = _State.PAUSED
            try:
                await self._engine.hold()
            except BaseException as error:
                await self.give_up(error)
                raise
        self._version = weights.version

    async def begin(self) -> None:
        """Begin an update that overwrites the model part by part (nccl)."""
        self._state = _State.LOADING
        await self._engine.start_weight_update()

    async def finish(self) -> None:
        """Load the version into the model."""
        self._state = _State.LOADING
        await self._engine.finish_weight_update()
        self._state = _State.WHOLE

    async def serve(self, weights: WeightsRef) -> SyncReport:
        """Serve the version that is loaded, and check it.

        Raises:
            SyncError: no version is loaded, or the check failed and the engine is held.
            EngineError, DeadlineError: the engine failed, or took longer than `cluster.deadline_s`.
        """
        try:
            if self._state is not _State.WHOLE:
                raise SyncError(f"rollout: version {weights.version} was announced, its bytes did not come")
            await self._engine.update_weight_version(str(weights.version))
            await self._engine.release()
        except BaseException as error:
            await self.give_up(error)
            raise
        self._state, self.held = _State.SERVING, None
        try:
            after = await _score_probes(self._engine, weights.probes)
            return self._check.check(weights.version, before=self._before, after=after, learner=_learner(weights))
        except AgileError as error:
            self._state = _State.WHOLE
            await self.give_up(error)
            raise

    async def give_up(self, why: BaseException) -> str | None:
        """End an update that failed: the old version serves again, or the engine is held.

        Args:
            why: it failed.

        Returns:
            why the engine is held; None if it is not.
        """
        if self._state is _State.PAUSED:
            try:
                await self._engine.release()
                self._state = _State.SERVING
            except AgileError as error:
                self._hold(error)
        elif self._state is not _State.SERVING and self.held is None:
            self._hold(why)
            with suppress(AgileError):  # what `held` says counts more
                await self._engine.hold()
        return self.held

    def _hold(self, why: BaseException) -> None:
        self._state = _State.LOADING
        self.held = (
            f"the engine is held since version {self._version} failed to load ({why}); it takes requests again once a "
            "whole version is loaded; run again to resume"
        )

    async def _transfer(self, buckets: Sequence[Bucket], blobs: Sequence[NDArray[np.uint8]]) -> None:
        if len(buckets) != len(blobs):
            raise SyncError(f"rollout: {len(buckets)} buckets were announced, {len(blobs)} arrived")
        try:
            await self._engine.start_weight_update()
            for bucket, blob in zip(buckets, blobs, strict=True):
                with shared_file(blob) as path:
                    message = BucketMessage.of(bucket, path=path, count=len(buckets))
                    await self._engine.update_weights(message.fields())
            await self.finish()
        except EngineError as error:
            raise SyncError(f"rollout: a weight update was refused: {error}") from error


def _learner(weights: WeightsRef) -> Float32:
    return flat([probe.logprobs for probe in weights.probes])


async def _score_probes(engine: ServingEngine, probes: Sequence[Probe]) -> Float32:
    return flat(await asyncio.gather(*(engine.score(probe.ids.tolist()) for probe in probes)))
