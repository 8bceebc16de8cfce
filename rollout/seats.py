"""The seats of one player, and the sessions that gave theirs up while an expert thinks.

A session whose expert takes longer than `PARK_S` is parked: another lane gets its seat. Once the answer is there, the
session waits for a seat and goes on from the same ids, on the weights that are live then. The lane that is furthest
behind gets the next free seat; of equals, the one whose session has begun.

A parked session is a coroutine with its ids and its turns; the engine holds nothing of it. It has no copy on disk: the
ask is in the run's books and the answer is with the expert, so whoever plays the session again asks under the same key
and pays once.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from types import TracebackType

PARK_S = 1.0
"""Time that a session waits for an expert in its seat, seconds."""


class Seats:
    """Counts seats that are taken, and lets parked sessions wait for one."""

    def __init__(self, number: int, *, changed: Callable[[], None]) -> None:
        """Begin with free seats.

        Args:
            number: of seats.
            changed: called when a seat was given up, when an answer has come, and when an expert turns out slow. It
                gives free seats away: to lanes by `take`, to sessions by `resume`.
        """
        self.number = number
        self.taken = 0
        self.asking = 0
        """Sessions that have waited for an expert for longer than `PARK_S`; some have kept their seats."""
        self.parks = 0
        """Seats that were given up, since it was set to 0."""
        self._changed = changed
        self._coming = itertools.count()
        self._answered: list[tuple[int, int, asyncio.Future[None]]] = []  # heap: sessions played, order of coming

    @property
    def free(self) -> int:
        """Seats that nobody has."""
        return self.number - self.taken

    @property
    def behind(self) -> int | None:
        """Sessions that the lane has played which is furthest behind of those with an answer; None: there is none."""
        while self._answered and self._answered[0][2].done():  # it was cancelled
            heapq.heappop(self._answered)
        return self._answered[0][0] if self._answered else None

    def take(self) -> None:
        """Give a free seat to a session that begins."""
        self.taken += 1

    def leave(self) -> None:
        """Take the seat of a session that has ended."""
        self.taken -= 1

    def resume(self) -> None:
        """Give a free seat to the answered session furthest behind; `behind` says that there is one."""
        self.take()
        heapq.heappop(self._answered)[2].set_result(None)

    def wait(self, played: int, *, keeps: bool) -> "Wait":
        """A block in which a seated session waits for an expert.

        Args:
            played: sessions that its lane has played.
            keeps: it keeps its seat.
        """
        return Wait(self, played, keeps=keeps)

    def slow(self, *, keeps: bool) -> None:
        """A session has waited for `PARK_S`."""
        self.asking += 1
        if not keeps:
            self.parks += 1
            self.taken -= 1
        self._changed()

    async def again(self, played: int, *, keeps: bool) -> None:
        """The expert has answered: wait for a seat."""
        self.asking -= 1
        if keeps:
            return
        seated = asyncio.get_running_loop().create_future()
        heapq.heappush(self._answered, (played, next(self._coming), seated))
        self._changed()
        await seated


class Wait:
    """An expert is asked in this block. After `PARK_S` the seat is free; the block ends in a seat."""

    __slots__ = ("_keeps", "_played", "_seats", "_slow", "_timer")

    def __init__(self, seats: Seats, played: int, *, keeps: bool) -> None:
        self._seats, self._played, self._keeps = seats, played, keeps
        self._slow = False
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PARK_S, self._park)

    def _park(self) -> None:
        self._slow = True
        self._seats.slow(keeps=self._keeps)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._slow and not isinstance(error, asyncio.CancelledError):  # a cancelled session never plays again
            await self._seats.again(self._played, keeps=self._keeps)
