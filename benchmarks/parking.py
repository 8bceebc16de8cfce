"""Measures parked sessions: what one costs in memory and time, and how busy seats stay while half of all lanes wait.

The real player, seats, lanes, executors and journals play scripted sessions (benchmarks/local_fleet.py).

    cost    every lane asks, and nobody answers before all of them are parked. Memory is that of Python's objects, from
            before the first lane has played until all are parked, less that of as many lanes between two sessions.
            Time is the processor's, beside that of sessions whose expert answers at once
    busy    sessions take their time, half of them ask, and an answer comes once more than half of the lanes wait. A
            seat is busy unless it is free or its session waits for an expert. Time is scaled: a session that has its
            seat for twenty seconds has it for 1/50 of that here, and so has `PARK_S`
"""

import argparse
import asyncio
import gc
import random
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.agent.policy import SessionView
from benchmarks.event_loop import Script
from benchmarks.local_fleet import SleepingPlayer, Waits, World, local_config, local_player
from launch.border import border
from rollout import seats
from rollout.fleet.messages import Lease, Orders

EXAMPLE = """example:
  python -m benchmarks.parking --lanes 10000
"""
TRACED = 1000
"""Most lanes whose memory is traced, which slows them down."""
SEATS = 64
"""In the measurement of cost."""
SCALE = 50
TURN_S = 4.5
"""Median of the engine's time for one of a session's 4 or 5 turns, seconds before scaling."""
BUSY_SEATS, BUSY_LANES = 20, 60
BUSY_S, WARM_UP_S = 10.0, 5.0
"""How long seats are watched, and how long they play before, once every lane is open; seconds, scaled."""
ASKING = 0.5
"""Share of sessions that ask while seats are watched."""
LOOK_S = 0.005


class Asks(Script):
    """Asks in a share of all sessions."""

    def __init__(self, share: float) -> None:
        self._share = share

    def asks(self, view: SessionView) -> bool:
        """As a draw of its own for each session says."""
        return random.Random(f"{view.stream.id} {view.position}").random() < self._share


class Person(World):
    """Thinks on the lanes' event loop: until `open` is set, and while no more than `keeps` asks are open."""

    patient = True

    def __init__(self, waits: Waits, *, stream_sessions: int, keeps: int = 0) -> None:
        """`keeps`: asks that are open before the oldest is answered."""
        super().__init__(waits, stream_sessions=stream_sessions)
        self.open = asyncio.Event()
        self.asked = 0
        self._keeps = keeps
        self._asks = deque[asyncio.Future[None]]()

    @property
    def waiting(self) -> int:
        """Asks that are open."""
        return len(self._asks)

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """Answer truly, in the end."""
        del key
        self.asked += 1
        if not self.open.is_set():
            await asyncio.wait_for(self.open.wait(), 3600)
        mine = asyncio.get_running_loop().create_future()
        self._asks.append(mine)
        while len(self._asks) > self._keeps:
            self._asks.popleft().set_result(None)
        await asyncio.wait_for(mine, 3600)
        return Advice(text=question.advice, answer=question.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of parked sessions, each."""

    bytes: float  # that a parked session holds
    plain_ms: float  # processor time of a session whose expert answers at once
    parked_ms: float  # of one that is parked; play included
    go_on_ms: float  # of its part after the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """Of seats, while sessions wait."""

    busy: float  # share of seats whose session does not wait
    taken: float  # share of seats that a session has
    waiting: float  # share of lanes that wait for an expert, in a seat or without


async def cost(lanes: int) -> Cost:
    """Park every lane, and let all go on."""
    plain_s, _ = await _play(lanes, parked=False)
    parked_s, go_on_s = await _play(lanes, parked=True)
    return Cost(
        bytes=await memory(min(lanes, TRACED)),
        plain_ms=1000 * plain_s / lanes,
        parked_ms=1000 * parked_s / lanes,
        go_on_ms=1000 * go_on_s / lanes,
    )


async def _play(lanes: int, *, parked: bool) -> tuple[float, float]:
    """Processor time of one session of every lane: of all, and of what comes after the answers."""
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        person, player = _player(Path(folder), lanes, seats=SEATS, sessions=1)
        if not parked:
            person.open.set()
        begin_s = time.process_time()
        with mock.patch.object(seats, "PARK_S", 0.0 if parked else 1.0):
            _lease(player, lanes, allowed=1)
            await _until(player, lambda: person.asked == lanes)
            middle_s = time.process_time()
            person.open.set()
            await _until(player, lambda: player.ended == lanes)
        end_s = time.process_time()
        player.close()
        return end_s - begin_s, end_s - middle_s


async def memory(lanes: int) -> float:
    """Bytes of a parked session, beyond those of its lane between two sessions."""
    found: list[int] = []
    for parked in (False, True):
        with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder, mock.patch.object(seats, "PARK_S", 0.0):
            person, player = _player(Path(folder), lanes, seats=SEATS, sessions=2)
            person.open.set()
            _lease(player, lanes, allowed=1)
            await _until(player, lambda player=player: player.ended == lanes)
            person.open.clear()
            gc.collect()
            tracemalloc.start()
            if parked:
                player.order(Orders(number=2, allowed=2, paused=False))
                await _until(player, lambda person=person: person.asked == 2 * lanes)
            gc.collect()
            found.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
            player.close()
            await asyncio.sleep(0.1)
    return (found[1] - found[0]) / lanes


async def busy() -> Busy:
    """Watch seats while half of the lanes wait."""
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        waits, sessions = Waits(turn_s=TURN_S / SCALE), 60  # more than a lane plays in this time
        person, player = _player(
            Path(folder),
            BUSY_LANES,
            seats=BUSY_SEATS,
            sessions=sessions,
            waits=waits,
            share=ASKING,
            keeps=BUSY_LANES // 2,
        )
        person.open.set()
        with mock.patch.object(seats, "PARK_S", seats.PARK_S / SCALE):
            _lease(player, BUSY_LANES, allowed=sessions)
            await _until(player, lambda: player.ended >= BUSY_LANES)  # opening a lane takes the processor
            reading = asyncio.ensure_future(_until(player, lambda: False))
            await asyncio.sleep(WARM_UP_S)
            looks: list[tuple[float, float, float]] = []
            end_s = time.monotonic() + BUSY_S
            while time.monotonic() < end_s:
                one, waiting = player.seats, person.waiting
                seated = max(waiting - one.asking, 0)  # those that wait in a seat, until they are parked
                looks.append((one.taken - seated, one.taken, waiting))
                await asyncio.sleep(LOOK_S)
        reading.cancel()
        player.close()
        await asyncio.sleep(0.1)
    free, taken, waiting = (sum(one) / len(looks) for one in zip(*looks, strict=True))
    return Busy(busy=free / BUSY_SEATS, taken=taken / BUSY_SEATS, waiting=waiting / BUSY_LANES)


class WatchedPlayer(SleepingPlayer):
    """A player whose seats can be looked at."""

    ended = 0  # sessions

    @property
    def seats(self) -> seats.Seats:
        """They count themselves."""
        return self._seats


def _player(
    folder: Path,
    lanes: int,
    *,
    seats: int,
    sessions: int,
    waits: Waits | None = None,
    share: float = 1.0,
    keeps: int = 0,
) -> tuple[Person, WatchedPlayer]:
    config = local_config(folder, lanes=lanes, sessions_per_lane=sessions, iterations=1, actors=1, seats=seats)
    person = Person(waits or Waits(), stream_sessions=sessions, keeps=keeps)
    player = local_player(config, person, writer="0", kind=WatchedPlayer)
    player.script = Asks(share)
    return person, player


def _lease(player: SleepingPlayer, lanes: int, *, allowed: int) -> None:
    leases = tuple(Lease(number=number, epoch=1, played=0, position=None) for number in range(lanes))
    player.order(Orders(number=1, allowed=allowed, paused=False, leases=leases))


async def _until(player: WatchedPlayer, reached: Callable[[], bool]) -> None:
    """Read reports until something is reached."""
    end_s = time.monotonic() + 3600
    while not reached() and time.monotonic() < end_s:
        report = await player.report(0.05)
        if report.fatal is not None:
            raise report.fatal
        assert not report.returned, report.returned
        player.ended += len(report.played)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", type=int, default=10_000, help="that are parked; default: %(default)s")
    given = parser.parse_args()
    found = asyncio.run(cost(given.lanes))
    print(f"{given.lanes:,} parked sessions on {SEATS} seats, each:")
    print(f"  memory                          {found.bytes / 1024:8.1f} KiB")
    print(f"  a session that is not parked    {found.plain_ms:8.2f} ms of the processor")
    print(f"  one that is parked              {found.parked_ms:8.2f} ms, {found.go_on_ms:.2f} of it after the answer")
    seen = asyncio.run(busy())
    print(f"{BUSY_SEATS} seats, {BUSY_LANES} lanes, of which {seen.waiting:.0%} wait for an expert:")
    print(f"  seats that are busy             {seen.busy:8.1%}")
    print(f"  seats that are taken            {seen.taken:8.1%}")


if __name__ == "__main__":
    with border():
        main()
