"""Event loops whose clock stands still while code runs, so that no deadline depends on the machine.

JumpingClock    jumps to the next timer when all wait: who sleeps too long misses a deadline, and nobody else
HandMoved       moves when a test says so
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

from agile_ray.agent.threads import running_calls

Result = TypeVar("Result")
THREAD_S = 0.001
"""How long to wait for a thread before looking again, seconds of the machine's clock."""
LONG_S = 60.0
"""Seconds of the machine's clock after which a wait for something outside of the loop counts as endless."""


class Still(asyncio.SelectorEventLoop):
    """Its clock begins at 0."""

    now = 0.0

    def time(self) -> float:
        return self.now


class JumpingClock(Still):
    """Passes a wait by putting the clock forward, unless a thread is at work."""

    def __init__(self) -> None:
        super().__init__(_Jumps(self))


class _Jumps(selectors.DefaultSelector):
    def __init__(self, loop: JumpingClock) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None and not running_calls():
            return super().select(LONG_S)
        if found := super().select(0) or (running_calls() and super().select(THREAD_S)):
            return found
        if timeout and not running_calls():
            self._loop.now += timeout
        return []


class HandMoved(Still):
    """Its timers fall due when `move` or `passes` says that their time has come."""

    async def move(self, seconds: float) -> None:
        """Let time pass, and what falls due happen. Call it on this loop."""
        await _settled()  # what was begun waits
        self.now += seconds
        await _settled()  # the timers run, then what they cancel

    def passes(self, seconds: float) -> None:
        """Let time pass, and what falls due happen. Call it in another thread."""
        asyncio.run_coroutine_threadsafe(self.move(seconds), self).result(LONG_S)


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(work: Coroutine[None, None, Result], loop: Still | None = None) -> Result:
    """`asyncio.run` on this loop, or on one that jumps."""
    with asyncio.Runner(loop_factory=lambda: loop or JumpingClock()) as runner:
        return runner.run(work)
