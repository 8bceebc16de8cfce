"""One rollout actor in Ray, as the dispatch of lanes sees it. Every wait has a deadline."""

import asyncio
import pickle
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from agile_ray.errors import AgileError, DeadlineError, EngineError
from agile_ray.ray_errors import explain
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import read_journals
from agile_ray.record.roll_call import RollCall
from agile_ray.scripted.head_start import AskingShares
from agile_ray.weights import WeightsRef
from rollout.fleet.dispatch import Bought
from rollout.fleet.messages import LanePosition, Orders, Report
from rollout.settings import ActorSettings
from rollout.waiting import LOWER

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

Result = TypeVar("Result")

START_S = 900.0
"""Longest wait for an engine to start, seconds; enough to read a large model from a slow disk."""
KILL_S = 30.0
"""Longest wait for a killed actor to be gone, seconds."""


class RayWorker:
    """The process of one rollout actor. Implements `rollout.fleet.dispatch.Worker`."""

    def __init__(self, handle: "ActorHandle", settings: ActorSettings, *, roll_call: RollCall | None) -> None:
        """Begin to start the engine.

        Args:
            handle: of an actor that was just created.
            settings: that it was created with.
            roll_call: of the run's folder; None: nobody checks that the actor's node has the same.
        """
        self.handle = handle
        self.common = settings.common
        """Settings that the actor opens lanes with."""
        self._settings = settings
        self._roll_call = roll_call
        self._answer = None if roll_call is None else handle.answer.remote(roll_call, self.name)
        self._start = handle.start.remote()

    @property
    def name(self) -> str:
        """Of the actor."""
        return f"engine-{self._settings.index}"

    @property
    def is_started(self) -> bool:
        """Whether its engine has started, or failed to."""
        return bool(ray.wait([self._start], timeout=0)[0])

    async def start(self) -> None:
        """Wait until the engine runs, on a node that sees the run's folder."""
        if self._answer is not None and self._roll_call is not None:
            await self._wait("answer", self._answer, deadline_s=START_S)
            self._roll_call.check([self.name])
        await self._wait("start", self._start, deadline_s=START_S)

    async def load(self, weights: WeightsRef) -> None:
        """Fetch a version, serve and check it."""
        await self._wait("load", self.handle.load.remote(weights))

    def order(self, orders: Orders) -> None:
        """Send orders; a report names those that were carried out."""
        self.handle.order.remote(pickle.dumps(orders))

    async def report(self, wait_s: float) -> Report:
        """What has happened since the last report."""
        return pickle.loads(await self._wait("report", self.handle.report.remote(wait_s)))  # noqa: S301  our own actor

    async def spread(self, numbers: Sequence[int], shares: AskingShares) -> list[LanePosition]:
        """Grow the memories of lanes where they begin."""
        return pickle.loads(await self._wait("spread", self.handle.spread.remote(numbers, shares)))  # noqa: S301

    async def reopen(self) -> None:
        """Open lanes with `common`."""
        await self._wait("reopen", self.handle.reopen.remote(self.common))

    async def sleep(self) -> None:
        """Let its engine leave the GPU."""
        await self._wait("sleep", self.handle.sleep.remote())

    async def wake(self) -> None:
        """Let its engine come back to the GPU."""
        await self._wait("wake", self.handle.wake.remote())

    async def kill(self) -> None:
        """Kill the process, and wait until Ray says that it is gone."""
        ray.kill(self.handle)
        end = asyncio.get_running_loop().time() + KILL_S
        while (left := end - asyncio.get_running_loop().time()) > 0:
            try:
                await self._wait("report", self.handle.report.remote(0.0), deadline_s=left)
            except EngineError:  # it is dead
                return
        raise DeadlineError(f"rollout: actor {self._settings.index} was killed, and must be gone within {KILL_S:g} s")

    def bought(self) -> Bought:
        """What it has in its books, for sessions that are in no batch."""
        paths = RunFolder(self.common.run_folder).journals(self._settings.writer)
        found = read_journals(paths)
        return Bought(receipts=found.receipts, unsure=len(found.unsure))

    async def _wait(self, call: str, answer: "ObjectRef[Result]", *, deadline_s: float | None = None) -> Result:
        limit = self.common.deadline_s if deadline_s is None else deadline_s
        where = f"rollout.{call}: actor {self._settings.index}"
        try:
            async with asyncio.timeout(limit):
                return await cast("Awaitable[Result]", answer)
        except TimeoutError as error:
            raise DeadlineError(f"{where} must answer within {limit:g} s, it did not") from error
        except RayTaskError as error:
            if isinstance(error.cause, AgileError):
                raise error.cause from None
            cause = explain(error.cause, lower=LOWER)
            raise EngineError(f"{where} failed, {type(error.cause).__name__}: {cause}") from error
        except (RayActorError, OutOfMemoryError) as error:
            raise EngineError(f"{where} died ({explain(error, lower=LOWER)})") from error
        except RayError as error:
            raise EngineError(f"{where}: {type(error).__name__}: {explain(error, lower=LOWER)}") from error
