"""An event loop whose clock stands still until a test moves it, so that no deadline depends on the machine."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

Result = TypeVar("Result")

LONG_S = 60.0
"""Real seconds after which a wait between threads counts as endless."""


class HandMoved(asyncio.SelectorEventLoop):
    """Its timers fall due when `move` or `passes` says that their time has come."""

    now = 0.0

    def time(self) -> float:
        return self.now

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


def run(work: Coroutine[None, None, Result], clock: HandMoved) -> Result:
    """`asyncio.run`, on this loop."""
    with asyncio.Runner(loop_factory=lambda: clock) as runner:
        return runner.run(work)
