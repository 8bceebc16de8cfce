"""The engine as a policy: each lane by itself, or all lanes in lockstep where a result must repeat exactly."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from agile_ray.agent.policy import Completion, SessionView


class Engine(Protocol):
    """What a policy needs from an engine."""

    async def generate(self, prompt_ids: Sequence[int], *, max_tokens: int, temperature: float) -> Completion: ...

    async def generate_batch(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: Sequence[int], temperature: float
    ) -> list[Completion]: ...


class EnginePolicy:
    """Writes a turn as soon as it is asked; the engine batches whatever is in flight."""

    def __init__(self, engine: Engine, *, temperature: float) -> None:
        """`temperature`: of sampling; 0.0 is greedy."""
        self._engine = engine
        self._temperature = temperature

    async def write(self, view: SessionView) -> Completion:
        return await self._engine.generate(view.context_ids, max_tokens=view.room, temperature=self._temperature)


class Lockstep:
    """A barrier before the engine: one batch holds one turn of every seated lane, in the order of their seats.

    seat 0  asks ----------.                 .--> plays on
    seat 1  asks ------.   |  last one asks  |--> plays on
    seat 2  plays ...  asks  -> one batch ->-'--> plays on

    Waits for: every seat that has not left. Woken by: the last one to ask, or to leave. Promises: the batches of two
    runs are equal if the lanes play equal sessions, however long tools and experts take.
    """

    def __init__(self, engine: Engine, *, seats: int, temperature: float) -> None:
        """`temperature`: of sampling; 0.0 is greedy."""
        self._engine = engine
        self._temperature = temperature
        self._seated = set(range(seats))
        self._asking: dict[int, tuple[SessionView, asyncio.Future[Completion]]] = {}
        self._batch: asyncio.Task[None] | None = None

    def seat(self, number: int) -> "Seat":
        """The policy of one lane."""
        return Seat(self, number)

    async def write(self, number: int, view: SessionView) -> Completion:
        """Ask for one seat's turn."""
        answer = asyncio.get_running_loop().create_future()
        self._asking[number] = (view, answer)
        self._go_if_all_ask()
        return await answer

    def leave(self, number: int) -> None:
        """Stop waiting for a seat: its lane has nothing left to play."""
        self._seated.discard(number)
        self._go_if_all_ask()

    def _go_if_all_ask(self) -> None:
        if self._asking and self._asking.keys() == self._seated:
            asking = [self._asking[number] for number in sorted(self._asking)]
            self._asking = {}
            self._batch = asyncio.create_task(self._write(asking))  # kept: a task that nobody holds may vanish

    async def _write(self, asking: Sequence[tuple[SessionView, asyncio.Future[Completion]]]) -> None:
        try:
            completions = await self._engine.generate_batch(
                [view.context_ids for view, _ in asking],
                max_tokens=[view.room for view, _ in asking],
                temperature=self._temperature,
            )
        except BaseException as error:  # noqa: BLE001  handed to whoever waits, in whose task it is raised
            for _, answer in asking:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), completion in zip(asking, completions, strict=True):
            if not answer.done():
                answer.set_result(completion)


class Seat:
    """One lane's place at the barrier."""

    def __init__(self, lockstep: Lockstep, number: int) -> None:
        self._lockstep = lockstep
        self._number = number

    async def write(self, view: SessionView) -> Completion:
        return await self._lockstep.write(self._number, view)
