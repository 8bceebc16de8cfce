"""Runs calls that may block in threads, so that a lane that waits for one stops no other lane.

An idle thread takes the next call; without one, a thread is started. So a call never waits for another one, and one
that hangs keeps only its own thread. The threads do not keep the process from ending.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")

_idle: list[SimpleQueue[Callable[[], None]]] = []  # the inbox of every idle thread
_running: set[object] = set()
os.register_at_fork(after_in_child=_idle.clear)  # a child has no threads but its own
os.register_at_fork(after_in_child=_running.clear)


async def in_thread(call: Callable[[], Result], *, deadline_s: float | None = None) -> Result:
    """Wait for what a call returns or raises.

    A call cannot be stopped. If it is late, or whoever waits for it is cancelled, its result is dropped.

    Args:
        call: runs in a thread, at the same time as others; may block, and must not raise a TimeoutError of its own.
        deadline_s: longest wait. None: no limit.

    Raises:
        TimeoutError: the call is late.
    """
    outcome: Future[Result] = Future()
    outcome.set_running_or_notify_cancel()  # from here on, cancelling the wait does not change the outcome

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  raised where the call is waited for
            outcome.set_exception(error)
        finally:
            _running.discard(outcome)

    _running.add(outcome)
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = SimpleQueue()
        threading.Thread(target=_serve, args=(inbox,), daemon=True).start()
    inbox.put(run)
    async with asyncio.timeout(deadline_s):
        return await asyncio.wrap_future(outcome)


def running_calls() -> int:
    """Calls that have not returned, also those that nobody waits for any more."""
    return len(_running)


def _serve(inbox: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        inbox.get()()
        _idle.append(inbox)
