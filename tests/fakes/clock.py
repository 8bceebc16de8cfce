"""An event loop whose clock stands still while code runs, and jumps to the next timer when all wait.

What is tested on it takes as long as its sleeps say, on any machine: a deadline is missed by those that sleep longer,
and by nobody else.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

from agile_ray.agent.threads import running_calls

Result = TypeVar("Result")
THREAD_S = 0.001
"""How long to wait for a thread before looking again, seconds of the machine's clock."""


class JumpingClock(selectors.DefaultSelector):
    """A selector that passes a wait by putting the clock forward, unless a thread is at work."""

    now = 0.0

    def select(self, timeout=None):
        if timeout is None and not running_calls():
            return super().select(60)  # a wait without end, for something outside of the loop
        if found := super().select(0) or (running_calls() and super().select(THREAD_S)):
            return found
        if timeout and not running_calls():
            self.now += timeout
        return []


def run(work: Coroutine[None, None, Result]) -> Result:
    """`asyncio.run` by a clock that jumps; its `loop.time()` begins at 0."""
    clock = JumpingClock()

    class Loop(asyncio.SelectorEventLoop):
        def time(self):
            return clock.now

    with asyncio.Runner(loop_factory=lambda: Loop(clock)) as runner:
        return runner.run(work)
