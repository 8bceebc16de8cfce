"""The Ray actor around one player: builds it from the configuration, fetches weights, passes calls on."""

import asyncio
import pickle
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

import envs
from agile_ray.agent.functions import STOPS
from agile_ray.config import RunConfig
from agile_ray.errors import DeadlineError, EngineError
from agile_ray.evaluation.plays import Play
from agile_ray.record.receipts import Journal
from agile_ray.seeds import derive
from agile_ray.weights import WeightsRef
from rollout.engine import VLLMEngine
from rollout.player import Place, Player
from rollout.rules import build_rules
from rollout.settings import EngineSettings
from rollout.tokenizer import HFTokenizer
from rollout.weights.sync_check import SyncReport

if TYPE_CHECKING:
    from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What one actor is to be."""

    config: RunConfig
    index: int  # 0-based place among the actors
    model: Path  # Hugging Face folder that the engine starts with
    log: Path
    asked: Path  # the journal of what its lanes pay for


class RolloutActor:
    """One engine and its lanes. Ray makes it an actor with `ray.remote`."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._player: Player | None = None

    async def start(self) -> None:
        """Start the engine, open the lanes.

        Raises:
            ConfigError: model, environment or embedder are not as the config says.
            EngineError: vLLM does not start.
        """
        config, rollout = self._post.config, self._post.config.rollout
        tokenizer = HFTokenizer(self._post.model)
        settings = EngineSettings(
            model=self._post.model,
            dtype=rollout.dtype,
            exact=rollout.dtype == config.learner.dtype == "float32",
            session_tokens=config.agent.session_tokens,
            stops=(tokenizer.eos_id, *(tokenizer.function_id(stop) for stop in sorted(STOPS))),
            lanes=rollout.lanes,
            transport=rollout.transport,
            device=config.cluster.device,
            kv_cache_gib=rollout.kv_cache_gib,
            gpu_memory=rollout.gpu_memory,
            tensor_parallel=rollout.tensor_parallel,
            seed=derive(config.seed, "engine", self._post.index),
            pinned=rollout.actors == 1,
            deadline_s=config.cluster.deadline_s,
            log=self._post.log,
        )
        self._player = self._open(await VLLMEngine.start(settings))

    async def reopen(self, config: RunConfig, asked: Path) -> None:
        """Open the lanes of another run on the engine that is up; its model and its settings stay.

        Raises:
            ConfigError: environment or embedder are not as the config says.
        """
        self._post = replace(self._post, config=config, asked=asked)
        self._player = self._open(self._ready.engine)

    def _open(self, engine: VLLMEngine) -> Player:
        config, rollout = self._post.config, self._post.config.rollout
        environment = envs.build(config.env, seed=config.seed)
        first = self._post.index * rollout.lanes
        return Player(
            engine=engine,
            environment=environment,
            rules=build_rules(config, environment, model=self._post.model),
            numbers=range(first, first + rollout.lanes),
            total=rollout.actors * rollout.lanes,
            temperature=rollout.temperature,
            price=config.env.price,
            bought=Journal(self._post.asked).add,
        )

    @property
    def _ready(self) -> Player:
        if self._player is None:
            raise EngineError(f"rollout actor {self._post.index}: called before it was started")
        return self._player

    async def collect(self, sessions: int) -> bytes:
        """Play this many sessions on every lane. Pickled: Ray would send each small array by itself."""
        return pickle.dumps(await self._ready.collect(sessions))

    async def evaluate(self, plays: Sequence[Play], split: str, greedy: bool) -> bytes:
        """Play streams from their start. Pickled: Ray would send each small array by itself."""
        return pickle.dumps(await self._ready.evaluate(plays, split=split, greedy=greedy))

    async def load(self, weights: WeightsRef) -> SyncReport:
        """Fetch a version from Ray's object store and serve it.

        Raises:
            DeadlineError: the bytes did not come.
            SyncError: the engine does not serve the version.
        """
        limit = self._post.config.cluster.deadline_s
        try:
            async with asyncio.timeout(limit):
                blobs = await asyncio.gather(*(cast("Awaitable[NDArray[np.uint8]]", blob) for blob in weights.blobs))
        except TimeoutError as error:
            raise DeadlineError(
                f"rollout: fetching version {weights.version} took longer than cluster.deadline_s ({limit} s)"
            ) from error
        return await self._ready.engine.load(weights, blobs)

    async def played(self) -> int:
        """Sessions that the running call has finished."""
        return 0 if self._player is None else self._player.played

    async def places(self) -> list[Place]:
        """Where every lane stands."""
        return self._ready.places()

    async def restore(self, places: Sequence[Place]) -> None:
        """Put the lanes back where they stood."""
        self._ready.restore(places)

    async def shutdown(self) -> None:
        """End the engine's processes."""
        if self._player is not None:
            self._player.engine.shutdown()

    # vLLM's RayVLLMWeightSyncClient drives these, by these names, where the transport is `nccl`.

    async def init_weight_transfer_engine(self, request: "WeightTransferInitRequest") -> None:
        """Join the group of trainer and engines; the workers of the actors before this one come first."""
        engine, rollout = self._ready.engine, self._post.config.rollout
        request.init_info["rank_offset"] += self._post.index * rollout.tensor_parallel
        await engine.wait("init_weight_transfer_engine", engine.llm.init_weight_transfer_engine(request))

    async def start_weight_update(self) -> None:
        """Hold the scheduler and begin a version."""
        engine = self._ready.engine
        await engine.hold()
        await engine.wait("start_weight_update", engine.llm.start_weight_update())

    async def update_weights(self, request: "WeightTransferUpdateRequest") -> None:
        """Receive one part of the version."""
        engine = self._ready.engine
        await engine.wait("update_weights", engine.llm.update_weights(request))

    async def finish_weight_update(self) -> None:
        """Put the version into the model and go on."""
        engine = self._ready.engine
        await engine.wait("finish_weight_update", engine.llm.finish_weight_update())
        await engine.release()

    async def update_weight_version(self, version: str) -> None:
        """Name the version on every token from now on."""
        engine = self._ready.engine
        await engine.wait("update_weight_version", engine.llm.update_weight_version(version))
