"""Policies that sample from an engine: each lane on its own, or all lanes in lockstep for repeatable results."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from agile_ray.agent.policy import Completion, Prompt, Writer
from agile_ray.errors import DeadlineError
from agile_ray.seeds import derive


class Engine(Protocol):
    """What lanes need from an engine; `rollout.engine.VLLMEngine` implements it."""

    async def generate(self, prompt_ids: Sequence[int], *, max_tokens: int, temperature: float) -> Completion: ...

    async def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: Sequence[int],
        temperature: float,
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]: ...

    async def forget(self) -> None: ...  # empties the prefix cache


class Seating(Protocol):
    """Gives each of the lanes that play at once its policy."""

    def seat(self, number: int) -> Writer: ...

    def leave(self, number: int) -> None: ...  # the lane in this seat has nothing left to play


class EnginePolicy:
    """Requests each turn at once; the engine batches the requests that are in flight."""

    def __init__(self, engine: Engine, *, temperature: float) -> None:
        """`temperature`: of sampling; 0.0 is greedy."""
        self._engine = engine
        self._temperature = temperature

    def seat(self, number: int) -> "EnginePolicy":
        """The policy of every lane is the same."""
        del number
        return self

    def leave(self, number: int) -> None:
        """Nobody waits for this lane."""

    async def write(self, view: Prompt) -> Completion:
        try:
            return await self._engine.generate(view.context_ids, max_tokens=view.room, temperature=self._temperature)
        except DeadlineError as error:
            raise DeadlineError(f"{error}, in session {view.position} of stream {view.stream.id}") from error


class Lockstep:
    """A barrier in front of the engine: each batch contains one turn of every seat, in seat order.

    seat 0  requests ------.                   .--> continues
    seat 1  requests --.   |   last request    |--> continues
    seat 2  plays ...  requests -> one batch ->'--> continues

    A request waits for all seats that have not left. The last seat to request or to leave starts the batch. If the
    lanes of two runs play equal sessions, their batches are equal, no matter how long tools and experts take. Each
    request samples with a seed of its own, derived from its stream, its position and the length of its context.
    """

    def __init__(self, engine: Engine, *, seats: int, temperature: float, seed: int) -> None:
        """Open the seats.

        Args:
            engine: writes the batches.
            seats: lanes that play together.
            temperature: of sampling; 0.0 is greedy.
            seed: root of the requests' seeds.
        """
        self._engine = engine
        self._temperature = temperature
        self._seed = seed
        self._seated = set(range(seats))
        self._requests: dict[int, tuple[Prompt, asyncio.Future[Completion]]] = {}
        self._batch: asyncio.Task[None] | None = None

    def seat(self, number: int) -> "Seat":
        """The policy of one lane, whose seat has this number."""
        return Seat(self, number)

    async def write(self, number: int, view: Prompt) -> Completion:
        """Request one seat's turn.

        Raises:
            EngineError, DeadlineError: the engine failed the batch; every seat in it gets the error.
        """
        answer = asyncio.get_running_loop().create_future()
        self._requests[number] = (view, answer)
        self._start_if_complete()
        return await answer

    def leave(self, number: int) -> None:
        """Give up a seat: its lane has nothing left to play, so later batches do not wait for it."""
        self._seated.discard(number)
        self._start_if_complete()

    def _start_if_complete(self) -> None:
        if self._requests and self._requests.keys() == self._seated:
            requests = [self._requests[number] for number in sorted(self._requests)]
            self._requests = {}
            self._batch = asyncio.create_task(self._write(requests))  # asyncio keeps only a weak reference to a task

    async def _write(self, requests: Sequence[tuple[Prompt, asyncio.Future[Completion]]]) -> None:
        try:
            completions = await self._engine.generate_batch(
                [view.context_ids for view, _ in requests],
                max_tokens=[view.room for view, _ in requests],
                temperature=self._temperature,
                seeds=[self._seed_of(view) for view, _ in requests] if self._temperature else None,
            )
        except BaseException as error:  # noqa: BLE001  raised in the tasks that wait for the batch
            for _, answer in requests:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), completion in zip(requests, completions, strict=True):
            if not answer.done():
                answer.set_result(completion)

    def _seed_of(self, view: Prompt) -> int:
        return derive(self._seed, "sample", view.stream.id, view.position, len(view.context_ids))


class Seat:
    """The policy of one lane that plays in lockstep with others."""

    def __init__(self, lockstep: Lockstep, number: int) -> None:
        self._lockstep = lockstep
        self._number = number

    async def write(self, view: Prompt) -> Completion:
        return await self._lockstep.write(self._number, view)
