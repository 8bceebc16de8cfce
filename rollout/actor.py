"""The Ray actor around one engine and its player: builds both, fetches weights, and forwards calls."""

import asyncio
import pickle
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

import envs
from agile_ray.agent.functions import STOPS, Function
from agile_ray.errors import DeadlineError, EngineError, SyncError
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import Journals
from agile_ray.record.roll_call import RollCall
from agile_ray.scripted.head_start import AskingShares
from agile_ray.seeds import derive
from agile_ray.weights import WeightsRef
from rollout.engine import VLLMEngine
from rollout.fleet.in_order import InOrder
from rollout.fleet.messages import Orders
from rollout.garbage import look_rarely
from rollout.player import Player
from rollout.rules import build_rules, worded
from rollout.settings import ActorSettings, EngineSettings, RolloutSettings
from rollout.weights.sync_check import SyncReport

if TYPE_CHECKING:
    from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest


class RolloutActor:
    """One engine and its lanes. `ray.remote` makes the class a Ray actor."""

    def __init__(self, settings: ActorSettings) -> None:
        self._settings = settings
        self._started_engine: VLLMEngine | None = None
        self._opened_player: Player | None = None
        self._orders = InOrder(lambda orders: self._player.order(orders))

    async def answer(self, call: RollCall, name: str) -> None:
        """Show that this node sees the run's folder.

        Raises:
            ConfigError: it does not.
        """
        call.answer(name)

    async def start(self) -> None:
        """Start the engine and open the lanes.

        Raises:
            ConfigError: model, environment or embedder do not fit the settings.
            EngineError: vLLM does not start.
        """
        self._started_engine = await VLLMEngine.start(engine_settings(self._settings))
        self._open_player()
        look_rarely()

    async def reopen(self, common: RolloutSettings) -> None:
        """Open lanes with other settings on the running engine, which keeps its model and its own settings.

        Raises:
            ConfigError: environment or embedder do not fit the settings.
        """
        self._settings = replace(self._settings, common=common)
        self._player.close()
        self._open_player()

    def _open_player(self) -> None:
        common, rollout = self._settings.common, self._settings.common.rollout
        environment = envs.build(common.env, seed=common.seed)
        self._opened_player = Player(
            engine=self._engine,
            environment=environment,
            rules=build_rules(
                environment,
                env=common.env,
                agent=common.agent,
                memory=common.memory,
                model=self._settings.model,
                seed=common.seed,
            ),
            total=common.lanes,
            sessions=common.sessions,
            seats=common.seats,
            temperature=rollout.temperature,
            seed=common.seed if rollout.deterministic else None,
            books=Journals(RunFolder(common.run_folder), self._settings.writer),
            deadline_s=common.deadline_s,
        )

    @property
    def _engine(self) -> VLLMEngine:
        if self._started_engine is None:
            raise EngineError(f"rollout actor {self._settings.index}: start it before any other call")
        return self._started_engine

    @property
    def _player(self) -> Player:
        if self._opened_player is None:
            raise EngineError(f"rollout actor {self._settings.index}: start it before any other call")
        return self._opened_player

    async def spread(self, numbers: Sequence[int], shares: AskingShares) -> bytes:
        """Grow the memories of lanes where they begin in their first streams; pickled positions."""
        return pickle.dumps(await self._player.spread(numbers, shares, seed=self._settings.common.seed))

    async def order(self, orders: bytes) -> None:
        """Carry out pickled `Orders`, after those with smaller numbers."""
        found: Orders = pickle.loads(orders)  # noqa: S301  from our own driver
        self._orders.take(found)

    async def report(self, wait_s: float) -> bytes:
        """What has happened since the last report; waits up to `wait_s` seconds for something to happen.

        Returns:
            A pickled `Report`: Ray would serialize each of the sessions' many small arrays separately.
        """
        return pickle.dumps(await self._player.report(wait_s))

    async def prepare(self, weights: WeightsRef) -> None:
        """Score the probes with the old version and pause; the learner then sends the new one (nccl).

        Raises:
            EngineError, DeadlineError: vLLM failed, or took longer than `cluster.deadline_s`.
        """
        await self._engine.loader.prepare(weights)

    async def serve(self, weights: WeightsRef) -> SyncReport:
        """Serve the version that the learner has sent (nccl), and check it.

        Raises:
            SyncError: the engine does not serve the version, and is held.
            EngineError, DeadlineError: vLLM failed, or took longer than `cluster.deadline_s`.
        """
        return await self._engine.loader.serve(weights)

    async def give_up(self, why: str) -> str | None:
        """End an update that failed elsewhere (nccl); returns why the engine is held, None if it serves the old one."""
        return await self._engine.loader.give_up(SyncError(why))

    async def load(self, weights: WeightsRef) -> SyncReport:
        """Fetch a version from Ray's object store, serve it, and check it.

        Raises:
            DeadlineError: fetching or loading took longer than `cluster.deadline_s`.
            EngineError: vLLM failed.
            SyncError: the engine does not serve the version.
        """
        limit = self._settings.common.deadline_s
        try:
            async with asyncio.timeout(limit):
                blobs = await asyncio.gather(*(cast("Awaitable[NDArray[np.uint8]]", blob) for blob in weights.blobs))
        except TimeoutError as error:
            raise DeadlineError(
                f"rollout: fetching version {weights.version} took longer than cluster.deadline_s ({limit} s)"
            ) from error
        return await self._engine.load(weights, blobs)

    async def sleep(self) -> None:
        """Leave the GPU until `wake`."""
        await self._engine.sleep()

    async def wake(self) -> None:
        """Come back to the GPU."""
        await self._engine.wake()

    async def shutdown(self) -> None:
        """End the engine's processes."""
        if self._started_engine is not None:
            self._started_engine.shutdown()

    # With the transport `nccl`, the sender of the learner calls the following methods, which are named as vLLM's.

    async def init_weight_transfer_engine(self, request: "WeightTransferInitRequest") -> None:
        """Join the process group of trainer and engines; workers are ranked in the order of their actors."""
        request.init_info["rank_offset"] += self._settings.index * self._settings.common.rollout.tensor_parallel
        await self._engine.init_weight_transfer_engine(request)

    async def start_weight_update(self) -> None:
        """Begin to overwrite the model of an engine that is prepared."""
        await self._engine.loader.begin()

    async def update_weights(self, request: "WeightTransferUpdateRequest") -> None:
        """Receive one part of the version."""
        await self._engine.update_weights(request.update_info)

    async def finish_weight_update(self) -> None:
        """Load the version into the model."""
        await self._engine.loader.finish()


def engine_settings(settings: ActorSettings) -> EngineSettings:
    """Settings of the engine that an actor starts.

    Raises:
        ConfigError: the model's folder has no tokenizer, or one without function tokens.
    """
    from rollout.tokenizer import HFTokenizer  # which imports transformers, and the driver imports this module

    common, rollout = settings.common, settings.common.rollout
    tokenizer = HFTokenizer(settings.model)
    stops = (STOPS - worded(common.env.expert)) & tokenizer.functions.keys()
    return EngineSettings(
        model=settings.model,
        dtype=rollout.dtype,
        exact=common.exact,
        session_tokens=common.agent.session_tokens,
        stops=(tokenizer.eos_id, *(tokenizer.functions[stop] for stop in sorted(stops))),
        ask=tokenizer.function_id(Function.SEEK_ADVICE),
        lanes=common.seats,
        transport=rollout.transport,
        device=common.device,
        kv_cache_gib=rollout.kv_cache_gib,
        gpu_memory=rollout.gpu_memory,
        tensor_parallel=rollout.tensor_parallel,
        sleeps=0 < common.gpu_share < 1,
        seed=derive(common.seed, "engine", settings.index),
        pinned=rollout.actors == 1,
        deadline_s=common.deadline_s,
        log=settings.log,
    )
