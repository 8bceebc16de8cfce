"""Lockstep with an engine that answers each prompt with its own length, and remembers its batches."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest

from agile_ray.agent.policy import Completion, SessionView
from agile_ray.errors import EngineError
from rollout.engine_policy import EnginePolicy, Lockstep


@dataclass
class View:
    context_ids: list[int]
    room: int = 3


@dataclass
class LengthEngine:
    """Fakes rollout.engine.VLLMEngine."""

    batches: list[list[int]] = field(default_factory=list)
    broken_after: int = 1000

    async def generate(self, prompt_ids: Sequence[int], *, max_tokens: int, temperature: float) -> Completion:
        return (await self.generate_batch([prompt_ids], max_tokens=[max_tokens], temperature=temperature))[0]

    async def generate_batch(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: Sequence[int], temperature: float
    ) -> list[Completion]:
        await asyncio.sleep(0)
        if len(self.batches) >= self.broken_after:
            raise EngineError("lost")
        self.batches.append([prompt[0] for prompt in prompts])
        return [
            Completion(
                ids=np.full(room, len(prompt), np.int32),
                logprobs=np.zeros(room, np.float32),
                versions=np.zeros(room, int),
            )
            for prompt, room in zip(prompts, max_tokens, strict=True)
        ]


def view(*ids: int) -> SessionView:
    return cast("SessionView", View(context_ids=list(ids)))


async def play(engine: LengthEngine, turns: Sequence[int], *, seed: int) -> None:
    """Lane n asks turns[n] times, dawdling as the seed says."""
    lockstep = Lockstep(engine, seats=len(turns), temperature=0.0)
    dawdle = random.Random(seed)

    async def lane(number: int) -> None:
        for turn in range(turns[number]):
            await asyncio.sleep(dawdle.random() / 100)
            written = await lockstep.seat(number).write(view(number, *range(turn)))
            assert written.ids.tolist() == [turn + 1] * 3
        lockstep.leave(number)

    async with asyncio.timeout(5):
        await asyncio.gather(*(lane(number) for number in range(len(turns))))


def test_every_batch_holds_one_turn_of_every_seated_lane_in_seat_order() -> None:
    for seed in range(5):
        engine = LengthEngine()
        asyncio.run(play(engine, [3, 1, 0, 2], seed=seed))
        assert engine.batches == [[0, 1, 3], [0, 3], [0]]


def test_an_engine_that_is_lost_is_lost_for_every_lane() -> None:
    async def both() -> list[BaseException | Completion]:
        lockstep = Lockstep(LengthEngine(broken_after=0), seats=2, temperature=0.0)
        asking = (lockstep.seat(number).write(view(number)) for number in range(2))
        return await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 5)

    assert [str(error) for error in asyncio.run(both())] == ["lost", "lost"]


def test_a_lane_that_leaves_lets_the_others_go_on() -> None:
    async def wait_then_leave() -> Completion:
        lockstep = Lockstep(LengthEngine(), seats=2, temperature=0.0)
        asking = asyncio.ensure_future(lockstep.seat(1).write(view(1, 2)))
        await asyncio.sleep(0.01)
        assert not asking.done()
        lockstep.leave(0)
        return await asyncio.wait_for(asking, 5)

    assert asyncio.run(wait_then_leave()).ids.tolist() == [2, 2, 2]


def test_an_engine_policy_writes_as_much_as_there_is_room_for() -> None:
    policy = EnginePolicy(LengthEngine(), temperature=1.0)
    assert asyncio.run(policy.write(cast("SessionView", View(context_ids=[5, 6], room=4)))).ids.tolist() == [2] * 4


@pytest.mark.parametrize("seats", [0, 1])
def test_nothing_is_asked_of_the_engine_when_nobody_plays(seats: int) -> None:
    engine = LengthEngine()
    lockstep = Lockstep(engine, seats=seats, temperature=0.0)
    for number in range(seats):
        lockstep.leave(number)
    assert engine.batches == []
