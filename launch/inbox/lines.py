"""The lines on which processes wait for answers: which asks each waits for, and which of them are closed.

A line is kept in memory, from its first request on. After a restart the inbox knows none, says so, and whoever is on it
posts its asks again (agile_ray/inbox/line.py), so nothing of it has to survive. A line on which nobody listens any more
is dropped.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice

DROPPED_S = 600.0
"""After this time without a request a line is dropped."""
TOLD_AT_ONCE = 200
"""Most asks of one reply."""


class _Line:
    """What one line waits for."""

    def __init__(self) -> None:
        self.closed: dict[int, str] = {}  # keys that are not read yet, by number, in the order of closing
        self.number = 0  # of the last ask that was closed
        self.changed = asyncio.Event()  # something is closed, or the inbox ends
        self.listeners = 0  # requests that wait; an earlier one may have lost its connection
        self.heard_s = 0.0


class Lines:
    """All lines of an inbox."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: in seconds."""
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._waiting: dict[str, set[str]] = {}  # names of lines, by the key of an open ask

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def open(self, name: str) -> None:
        """Keep a line, and drop those on which nobody listens."""
        now = self._clock()
        dropped = [one for one, line in self._lines.items() if not line.listeners and now - line.heard_s > DROPPED_S]
        for one in dropped:
            del self._lines[one]
        if dropped:
            self._waiting = {key: kept for key, names in self._waiting.items() if (kept := names & self._lines.keys())}
        self._lines[name] = _Line()
        self._lines[name].heard_s = now

    def add(self, name: str, key: str) -> None:
        """A line waits for an ask, if the line is kept."""
        if name in self._lines:
            self._waiting.setdefault(key, set()).add(name)

    def close(self, key: str) -> None:
        """An ask is closed: wake those who wait for it."""
        for name in self._waiting.pop(key, ()):
            line = self._lines[name]
            line.number += 1
            line.closed[line.number] = key
            line.changed.set()

    def wake_all(self) -> None:
        """Let all who wait return, since the server ends."""
        for line in self._lines.values():
            line.changed.set()

    async def wait(self, name: str, *, read: int, seconds: float) -> Mapping[int, str]:
        """The keys of closed asks that a line has not read, by ascending number; waits for the first of them.

        Args:
            name: of a line that is kept.
            read: number up to which it has read them.
            seconds: how long to wait.
        """
        line = self._lines[name]
        for number in [one for one in line.closed if one <= read]:
            del line.closed[number]
        line.listeners += 1
        try:
            if not line.closed:
                line.changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(line.changed.wait(), seconds)
        finally:
            line.listeners -= 1
            line.heard_s = self._clock()
        return dict(islice(line.closed.items(), TOLD_AT_ONCE))
