"""An event loop whose clock stands still until a test moves it, so that no deadline depends on the machine."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

Result = TypeVar("Result")

LONG_S = 60.0
"""Real seconds after which a wait between threads counts as endless."""


class HandMoved(asyncio.SelectorEventLoop):
    """Its timers fall due when `passes` says that their time has come."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        """Let time pass, and what falls due happen. Call it in another thread."""

        async def move() -> None:
            self.now += seconds
            for _ in range(3):  # the timers run, then what they cancel
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(move(), self).result(LONG_S)


def run(work: Coroutine[None, None, Result], clock: HandMoved) -> Result:
    """`asyncio.run`, on this loop."""
    with asyncio.Runner(loop_factory=lambda: clock) as runner:
        return runner.run(work)
