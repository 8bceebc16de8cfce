"""Simulates paced asynchrony at zero overhead: what a run takes whose time goes into play and learning alone.

The rule. Slice k of a lane is what batch k learns from it, at version k, and makes version k + 1.

    a lane begins slice k    once it has ended slice k - 1, version k - max_age is live, and a seat is free
    batch k is learned       once every lane has ended slice k + window - 1, and batch k - 1 is learned

So every token of batch k is sampled by version k - max_age or later. Lanes wait for seats in the order in which they
may begin; a lane keeps its seat for a slice. With max_age 0 and window 1 play and learning take turns.

Dimensions: K = slices, L = lanes. Times are in seconds.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.errors import ContractError
from agile_ray.types import Float64

LEARNER = -1
"""Stands for the learner where others have the number of a lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When everything happens."""

    begins: Float64  # [K, L], of each lane's slice
    ends: Float64  # [K, L]
    learn_begins: Float64  # [K], of each batch
    learn_ends: Float64  # [K], also when version k + 1 is live

    @property
    def wall_s(self) -> float:
        """Of the whole run."""
        return float(self.learn_ends[-1])

    @property
    def learner_idle_s(self) -> float:
        """Time in which the learner waits for lanes."""
        return self.wall_s - float((self.learn_ends - self.learn_begins).sum())


def simulate(
    play_s: Float64, learn_s: Sequence[float], *, max_age: int, seats: int | None = None, window: int = 1
) -> Timeline:
    """When slices are played and batches learned.

    Args:
        play_s: float64 [K, L], how long each lane plays each slice.
        learn_s: [K], how long each batch is learned, until the next version is live.
        max_age: largest age at which a token is learned, in versions.
        seats: lanes that play at once; None: all of them.
        window: slices of a lane that credit needs before it learns the first of them.

    Raises:
        ContractError: the shapes differ, or no batch could ever be learned.
    """
    slices, lanes = play_s.shape
    if len(learn_s) != slices:
        raise ContractError.mismatch("pacing", play_s=play_s.shape, learn_s=(len(learn_s),))
    if not 1 <= window <= max_age + 1 or (seats is not None and seats < 1):
        raise ContractError(
            f"pacing: play needs a seat, and a window of at most max_age + 1 slices; found {seats} seats, window "
            f"{window}, max_age {max_age}"
        )
    run = _Run(play_s, learn_s, max_age=max_age, seats=lanes if seats is None else seats, window=window)
    while run.learned < slices:
        run.step()
    return Timeline(begins=run.begins, ends=run.ends, learn_begins=run.learn_begins, learn_ends=run.learn_ends)


class _Run:
    """The state between two events; an event is the end of a slice or of a batch."""

    def __init__(self, play_s: Float64, learn_s: Sequence[float], *, max_age: int, seats: int, window: int) -> None:
        self._play_s, self._learn_s = play_s, learn_s
        self._max_age, self._seats, self._window = max_age, seats, window
        slices, lanes = play_s.shape
        self.begins, self.ends = np.zeros(play_s.shape), np.zeros(play_s.shape)
        self.learn_begins, self.learn_ends = np.zeros(slices), np.zeros(slices)
        self.learned = 0  # batches, which is the version that is live
        self._learning = False
        self._next = [0] * lanes  # slice that each lane plays or waits to play
        self._left = [lanes] * slices  # lanes that have not ended the slice
        self._complete = 0  # slices that all lanes have ended
        self._queue = deque(range(lanes))  # lanes that may begin, and wait for a seat
        self._held = deque[int]()  # lanes that wait for a version
        self._events: list[tuple[float, int]] = []
        self._go_on(0.0)

    def step(self) -> None:
        """Let the next event happen, and begin what it allows."""
        now, who = heapq.heappop(self._events)
        if who == LEARNER:
            self.learned, self._learning = self.learned + 1, False
            held, self._held = self._held, deque()
            self._admit(held)
        else:
            played = self._next[who]
            self._left[played] -= 1
            while self._complete < len(self._left) and not self._left[self._complete]:
                self._complete += 1
            self._seats += 1
            self._next[who] += 1
            if self._next[who] < len(self._left):
                self._admit([who])
        if not self._events or self._events[0][0] > now:  # all that happens at this moment has happened
            self._go_on(now)

    def _admit(self, lanes: Sequence[int] | deque[int]) -> None:
        for lane in lanes:
            allowed = self._next[lane] - self._max_age <= self.learned
            (self._queue if allowed else self._held).append(lane)

    def _go_on(self, now: float) -> None:
        while self._seats and self._queue:
            lane = self._queue.popleft()
            self._seats -= 1
            place = self._next[lane], lane
            self.begins[place], self.ends[place] = now, now + self._play_s[place]
            heapq.heappush(self._events, (self.ends[place], lane))
        batch = self.learned
        if not self._learning and batch < len(self._left):
            needed = min(batch + self._window, len(self._left))
            if self._complete >= needed:
                self._learning = True
                self.learn_begins[batch], self.learn_ends[batch] = now, now + self._learn_s[batch]
                heapq.heappush(self._events, (self.learn_ends[batch], LEARNER))
