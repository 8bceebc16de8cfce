"""The clock that jumps: sleeps pass at once and in order, threads are waited for, and what never happens ends."""

import asyncio
import time

import pytest

from agile_ray.agent.threads import in_thread
from tests.fakes import clock


async def now():
    return asyncio.get_running_loop().time()


def test_sleeps_take_their_time_by_the_clock_and_none_by_the_machine_s():
    ends = []

    async def sleep(seconds):
        await asyncio.sleep(seconds)
        ends.append((seconds, await now()))

    async def all_of_them():
        await asyncio.gather(*map(sleep, (3600, 7200.5, 0.25)))

    begin = time.monotonic()
    clock.run(all_of_them())
    assert ends == [(seconds, pytest.approx(seconds)) for seconds in (0.25, 3600, 7200.5)]
    assert time.monotonic() - begin < 60


def test_no_time_passes_while_a_thread_is_at_work():
    async def work():
        async with asyncio.timeout(0.001):
            await in_thread(lambda: time.sleep(0.05))
        return await now()

    assert clock.run(work()) < 0.001


def test_a_wait_for_what_never_happens_ends_by_its_deadline_at_once():
    async def wait():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1000)
        return await now()

    assert clock.run(wait()) == pytest.approx(1000)
