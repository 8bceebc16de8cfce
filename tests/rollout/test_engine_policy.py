import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from agile_ray.agent.policy import Completion, SessionView
from rollout.engine_policy import EnginePolicy, Lockstep
from tests.fakes.engine import FakeEngine


@dataclass
class View:
    context_ids: list[int]
    room: int = 3
    stream: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(id="s"))
    position: int = 0


def view(*ids: int) -> SessionView:
    return cast("SessionView", View(context_ids=list(ids)))


async def play(engine: FakeEngine, turns: Sequence[int], *, seed: int) -> None:
    """Lane n requests turns[n] turns, at random times."""
    lockstep = Lockstep(engine, seats=len(turns), temperature=0.0, seed=0)
    delay = random.Random(seed)

    async def lane(number: int) -> None:
        for turn in range(turns[number]):
            await asyncio.sleep(delay.random() / 100)
            written = await lockstep.seat(number).write(view(number, *range(turn)))
            assert written.ids.tolist() == [turn + 1] * 3
        lockstep.leave(number)

    async with asyncio.timeout(60):
        await asyncio.gather(*(lane(number) for number in range(len(turns))))


def test_a_batch_holds_one_turn_of_every_lane_that_still_plays_in_seat_order() -> None:
    for seed in range(5):
        engine = FakeEngine()
        asyncio.run(play(engine, [3, 1, 0, 2], seed=seed))
        assert engine.batches == [[0, 1, 3], [0, 3], [0]]


def test_an_error_of_the_engine_reaches_every_lane() -> None:
    async def both() -> list[BaseException | Completion]:
        lockstep = Lockstep(FakeEngine(fails_in="generate"), seats=2, temperature=0.0, seed=0)
        asking = (lockstep.seat(number).write(view(number)) for number in range(2))
        return await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 60)

    assert [str(error) for error in asyncio.run(both())] == ["lost", "lost"]


def test_a_lane_that_leaves_starts_the_batch_of_the_others() -> None:
    async def wait_then_leave() -> Completion:
        lockstep = Lockstep(FakeEngine(), seats=2, temperature=0.0, seed=0)
        asking = asyncio.ensure_future(lockstep.seat(1).write(view(1, 2)))
        await asyncio.sleep(0.01)
        assert not asking.done()
        lockstep.leave(0)
        return await asyncio.wait_for(asking, 60)

    assert asyncio.run(wait_then_leave()).ids.tolist() == [2, 2, 2]


def test_an_engine_policy_asks_for_as_many_tokens_as_there_is_room_for() -> None:
    policy = EnginePolicy(FakeEngine(), temperature=1.0)
    assert asyncio.run(policy.write(cast("SessionView", View(context_ids=[5, 6], room=4)))).ids.tolist() == [2] * 4


@pytest.mark.parametrize("seats", [0, 1])
def test_the_engine_gets_no_batch_when_nobody_plays(seats: int) -> None:
    engine = FakeEngine()
    lockstep = Lockstep(engine, seats=seats, temperature=0.0, seed=0)
    for number in range(seats):
        lockstep.leave(number)
    assert engine.batches == []


def test_a_sampled_turn_has_a_seed_that_depends_on_its_stream_its_position_and_its_context() -> None:
    def seeds(*views: View, seed: int = 0) -> list[int]:
        engine = FakeEngine()

        async def write() -> None:
            lockstep = Lockstep(engine, seats=len(views), temperature=1.0, seed=seed)
            await asyncio.gather(
                *(lockstep.seat(n).write(cast("SessionView", one)) for n, one in enumerate(views)),
                return_exceptions=True,
            )

        asyncio.run(write())
        (batch,) = engine.seeds
        assert batch is not None
        return batch

    other_stream = SimpleNamespace(id="t")
    different = seeds(View([1]), View([1, 2]), View([1], position=1), View([1], stream=other_stream))
    assert len({*different, *seeds(View([1]), seed=1)}) == 5
    assert seeds(View([1], position=1), View([1])) == [different[2], different[0]]


def test_greedy_turns_have_no_seeds() -> None:
    engine = FakeEngine()
    asyncio.run(Lockstep(engine, seats=1, temperature=0.0, seed=0).seat(0).write(view(1)))
    assert engine.seeds == [None]
