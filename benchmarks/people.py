"""Simulates a fleet whose expert is some people: how many of them keep its seats busy, and what training waits for.

    session   plays in a seat; if it asks, it leaves the seat for the ask and comes back for the rest
    ask       waits for a person in order of coming; a person answers one ask at a time, in a log-normal time
    seat      goes to the lane that is furthest behind; of equals, to the one whose session has begun
    lane      begins slice k once version k - max_age is live; batch k is learned once every lane has ended slice k

The last line is the pacing rule (benchmarks/pacing.py). Engine, driver and parking take no time, people never pause.
An agent that knows how likely its guess is asks where it gains by that: right advice earns 1 - price. With chances of
guessing spread evenly over [0, 1] and no memory it asks in a share 1 - price of its sessions; --asked says another.

Without a learner (`learn_s` None) there are no versions: that is serving, or an unlimited age.
"""

import argparse
import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agile_ray.errors import ContractError
from agile_ray.types import Float64
from launch.border import border

EXAMPLE = """examples:
  python -m benchmarks.people --seats 64 --think 30
  python -m benchmarks.people --seats 256 --think 120 --asked 0.05
"""
BEFORE = 0.7
"""Share of a session's play that comes before the ask."""
AIM = 0.95
"""Share of seats that count as kept busy."""
PRICES = (0.3, 0.6, 0.9, 0.97)
LANES = (2, 4, 8)
"""For each seat."""
AGES = (0, 1, 4)
ENDLESS = 1_000_000
"""Sessions of a lane that plays as long as it is watched."""
WATCHED_S = 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is simulated. Times are in seconds."""

    seats: int
    lanes: int
    people: int
    asked: float  # share of sessions that ask, once each
    session_s: float = 20.0  # mean time of a session in its seat
    session_spread: float = 0.5  # standard deviation of its logarithm
    think_s: float = 30.0  # median time of an answer
    think_spread: float = 1.0  # standard deviation of its logarithm
    sessions: int = ENDLESS  # of every slice
    batches: int = 1
    max_age: int = 0
    learn_s: float | None = None  # of a batch, until the next version is live; None: nothing is learned
    until_s: float | None = None  # the simulation ends then; None: when everything is played


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a simulation finds.

    Shares are of the middle of the run, from 20 to 80 % of its time; of one that ends early, of its second half.
    """

    wall_s: float
    seats_busy: float
    people_busy: float
    parked: float  # sessions that wait for an answer, mean
    waits_s: Float64  # [A], of every ask until its answer
    learner_idle: float  # share of the run in which nothing is learned


def simulate(fleet: Fleet, *, seed: int = 0) -> Outcome:
    """Play all batches.

    Raises:
        ContractError: there is nobody to ask, or nothing to play.
    """
    if min(fleet.seats, fleet.lanes, fleet.people, fleet.sessions, fleet.batches) < 1:
        raise ContractError(f"people: seats, lanes, people, sessions and batches must be at least 1, found {fleet}")
    run = _Run(fleet, seed=seed)
    while run.events and (fleet.until_s is None or run.events[0][0] < fleet.until_s):
        run.step()
    return run.outcome()


class _Run:
    """The state between two events: the end of a play, of an answer, or of learning."""

    def __init__(self, fleet: Fleet, *, seed: int) -> None:
        self._fleet, self._draw = fleet, np.random.default_rng(seed)
        self.events: list[tuple[float, int, str, int]] = []  # time, order, what, lane
        self._order = itertools.count()
        self._ready: list[tuple[int, bool, int, int]] = []  # heap: played, whether it is to begin, order, lane
        self._resting = list(range(fleet.lanes))
        self._asks = deque[int]()  # lanes whose asks wait for a person
        self._asked_at: dict[int, float] = {}
        self._rest_s: dict[int, float] = {}  # what a session plays after its ask
        self._asking: set[int] = set()  # lanes that will ask when they leave their seats
        self._played = [0] * fleet.lanes
        self._left = [fleet.lanes] * fleet.batches  # lanes that have not ended the slice
        self._free, self._people = fleet.seats, fleet.people
        self._live, self._learning, self._learned_s = 0, False, 0.0
        self._now = 0.0
        self._seated: list[tuple[float, float]] = []  # begin and end
        self._thought: list[tuple[float, float]] = []
        self._waited: list[tuple[float, float]] = []
        self._go_on()

    def step(self) -> None:
        """Let the next event happen, and begin what it allows."""
        self._now, _, what, lane = heapq.heappop(self.events)
        if what == "played":
            self._free += 1
            if lane in self._asking:
                self._asking.remove(lane)
                self._asks.append(lane)
                self._asked_at[lane] = self._now
            else:
                self._end(lane)
        elif what == "answered":
            self._people += 1
            self._waited.append((self._asked_at.pop(lane), self._now))
            heapq.heappush(self._ready, (self._played[lane], False, next(self._order), lane))
        else:
            self._live, self._learning = self._live + 1, False
        self._go_on()

    def _end(self, lane: int) -> None:
        self._played[lane] += 1
        if self._played[lane] % self._fleet.sessions == 0:
            self._left[self._played[lane] // self._fleet.sessions - 1] -= 1
        self._resting.append(lane)

    def _go_on(self) -> None:
        fleet = self._fleet
        version = self._live + fleet.max_age if fleet.learn_s is not None else fleet.batches
        allowed = fleet.sessions * min(version + 1, fleet.batches)
        resting, self._resting = self._resting, []
        for lane in resting:
            if self._played[lane] < allowed:
                heapq.heappush(self._ready, (self._played[lane], True, next(self._order), lane))
            else:
                self._resting.append(lane)
        while self._free and self._ready:
            _, begins, _, lane = heapq.heappop(self._ready)
            self._free -= 1
            self._seated.append(self._until(self._begun_s(lane) if begins else self._rest_s.pop(lane), "played", lane))
        while self._people and self._asks:
            self._people -= 1
            think_s = fleet.think_s * float(np.exp(fleet.think_spread * self._draw.standard_normal()))
            self._thought.append(self._until(think_s, "answered", self._asks.popleft()))
        if fleet.learn_s is None or self._learning or self._live == fleet.batches or self._left[self._live]:
            return
        self._learning = True
        self._learned_s += fleet.learn_s
        self._until(fleet.learn_s, "learned", -1)

    def _begun_s(self, lane: int) -> float:
        """How long a session that begins plays until it asks or ends."""
        fleet = self._fleet
        median_s = fleet.session_s * float(np.exp(-(fleet.session_spread**2) / 2))
        whole_s = median_s * float(np.exp(fleet.session_spread * self._draw.standard_normal()))
        if self._draw.random() >= fleet.asked:
            return whole_s
        self._asking.add(lane)
        self._rest_s[lane] = (1 - BEFORE) * whole_s
        return BEFORE * whole_s

    def _until(self, lasts_s: float, what: str, lane: int) -> tuple[float, float]:
        heapq.heappush(self.events, (self._now + lasts_s, next(self._order), what, lane))
        return self._now, self._now + lasts_s

    def outcome(self) -> Outcome:
        """What has happened."""
        fleet, wall_s = self._fleet, self._now if self._fleet.until_s is None else self._fleet.until_s
        begin_s, end_s = (0.2 * wall_s, 0.8 * wall_s) if fleet.until_s is None else (0.5 * wall_s, wall_s)
        waits = np.array(self._waited, dtype=np.float64).reshape(-1, 2)
        return Outcome(
            wall_s=wall_s,
            seats_busy=_mean(self._seated, begin_s, end_s) / fleet.seats,
            people_busy=_mean(self._thought, begin_s, end_s) / fleet.people,
            parked=_mean(self._waited, begin_s, end_s),
            waits_s=waits[:, 1] - waits[:, 0],
            learner_idle=1 - self._learned_s / wall_s,
        )


def _mean(spans: Sequence[tuple[float, float]], begin_s: float, end_s: float) -> float:
    """How many of these spans hold at a moment between two times, on average."""
    found = np.clip(np.array(spans, dtype=np.float64).reshape(-1, 2), begin_s, end_s)
    return float((found[:, 1] - found[:, 0]).sum()) / (end_s - begin_s)


def needed(fleet: Fleet, *, aim: float = AIM) -> int | None:
    """The fewest people with whom a share `aim` of seats is busy; None: no number is enough."""
    mean_s = fleet.think_s * float(np.exp(fleet.think_spread**2 / 2))
    offered = fleet.seats / fleet.session_s * fleet.asked * mean_s  # people who are busy if all seats are
    low, high = 0, min(fleet.lanes, 10 + int(2 * offered))  # too few; as good as one for each lane
    if simulate(replace(fleet, people=high)).seats_busy < aim:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if simulate(replace(fleet, people=middle)).seats_busy >= aim:
            high = middle
        else:
            low = middle
    return high


def serving_table(fleet: Fleet, *, asked: float | None) -> list[str]:
    """Lines of Markdown: by price and lanes, the people that keep the seats busy, and what they are paid."""
    lines = ["| price | sessions that ask | lanes | people | asks per hour | price per hour | median wait | parked |"]
    lines.append("|---" * 8 + "|")
    for price in PRICES:
        share = 1 - price if asked is None else asked
        for factor in LANES:
            one = replace(fleet, lanes=factor * fleet.seats, asked=share, until_s=WATCHED_S)
            people = needed(one)
            row = [f"{price:g}", f"{share:.0%}", f"{one.lanes:,}"]
            if people is None:
                lines.append(f"| {' | '.join([*row, 'none is enough', '', '', '', ''])} |")
                continue
            found = simulate(replace(one, people=people))
            hourly = 3600 * fleet.seats * found.seats_busy / fleet.session_s * share
            wait_s = float(np.median(found.waits_s))
            row += [str(people), f"{hourly:,.0f}", f"{hourly * price:,.0f}", f"{wait_s:.0f} s", f"{found.parked:.0f}"]
            lines.append(f"| {' | '.join(row)} |")
    return lines


def training_table(fleet: Fleet, *, people: Sequence[int], price: float, asked: float | None) -> list[str]:
    """Lines of Markdown: by people and largest age, how long an iteration takes and who is idle."""
    lines = ["| people | max_age | an iteration | seats busy | people busy | learner idle | 95 % of waits below |"]
    lines.append("|---" * 7 + "|")
    share = 1 - price if asked is None else asked
    for number in people:
        for age in AGES:
            one = replace(fleet, people=number, asked=share, max_age=age, sessions=4, batches=12, learn_s=60.0)
            found = simulate(one)
            waits_s = float(np.quantile(found.waits_s, 0.95)) if len(found.waits_s) else 0.0
            lines.append(
                f"| {number} | {age} | {found.wall_s / one.batches:,.0f} s | {found.seats_busy:.0%} "
                f"| {found.people_busy:.0%} | {found.learner_idle:.0%} | {waits_s:,.0f} s |"
            )
    return lines


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seats", type=int, default=64, help="of all actors; default: %(default)s")
    parser.add_argument("--think", type=float, default=30.0, help="median time of an answer, s; default: %(default)s")
    parser.add_argument("--session", type=float, default=20.0, help="mean time in a seat, s; default: %(default)s")
    parser.add_argument("--asked", type=float, help="share of sessions that ask; default: 1 - price")
    parser.add_argument("--price", type=float, default=0.9, help="of the second table; default: %(default)s")
    given = parser.parse_args()
    fleet = Fleet(
        seats=given.seats, lanes=4 * given.seats, people=1, asked=0.0, session_s=given.session, think_s=given.think
    )
    print("\n".join(serving_table(fleet, asked=given.asked)), end="\n\n")
    table = training_table(fleet, people=(1, 4, 16, 64), price=given.price, asked=given.asked)
    print("\n".join(table))


if __name__ == "__main__":
    with border():
        main()
