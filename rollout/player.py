"""Plays the lanes that one actor has, on one engine. The class does not need Ray; `rollout.actor` wraps it.

Lane n of the N lanes of a run plays the training streams n, n + N, n + 2N, ..., so two lanes never play the same
stream. A training spreads the lanes over their first streams (agile_ray/scripted/head_start.py) before they play.

There may be fewer seats than lanes. A seat plays one session of the lane that is furthest behind, then the next. A
session whose expert is slow gives its seat to another lane (rollout/seats.py). In lockstep every seat has lanes of its
own, so that two runs put the same lanes into the same batches; there, and in evaluations, a session keeps its seat.

What goes wrong is classified here:

    the engine lost a request, or is late    the engine is at fault: `Report.failure`, and the actor is replaced
    a session raised, or a step is late      the lane is handed back with the fault, and another attempt is made
    a full disk, a contract that is broken   `Report.fatal`: nobody else would do better
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

from agile_ray.agent.environment import Environment, Stream
from agile_ray.agent.expert import AskKey
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, Policy, Prompt, Writer
from agile_ray.agent.rules import Rules
from agile_ray.errors import AgileError, ConfigError, ContractError, DeadlineError, EngineError, described, is_full_disk
from agile_ray.evaluation.plays import Part, Play, balanced
from agile_ray.scripted.guided import grow
from agile_ray.scripted.head_start import AskingShares, first_position, head_start
from agile_ray.types import Receipt, Session
from rollout.engine_policy import Engine, EnginePolicy, Lockstep, Seating
from rollout.fleet.messages import Errand, LanePosition, Lease, Orders, Played, Report, Returned
from rollout.seats import Seats
from rollout.timed_session import play_session

PART_S = 300.0
"""Time between two parts of a stream that is kept while it is played, seconds: what a stop loses of each stream."""


class Books(Protocol):
    """Where purchases are written down; `agile_ray.record.receipts.Journals` implements it."""

    def ask(self, iteration: int, key: str) -> None: ...

    def buy(self, iteration: int, receipt: Receipt) -> None: ...


@dataclass(slots=True)
class _Seated:
    """A lane that this player has."""

    lease: Lease
    played: int  # sessions of the lane, in all iterations
    round: int
    lane: Lane | None = None  # opened when it is played first


class _EngineFailedError(Exception):
    """Carries what a policy raised through the lane that it played."""


class Player:
    """The lanes that one engine plays, and its part of evaluations."""

    def __init__(
        self,
        *,
        engine: Engine,
        environment: Environment,
        rules: Rules,
        total: int,
        sessions: int,
        seats: int,
        temperature: float,
        seed: int | None,
        books: Books,
        deadline_s: float,
    ) -> None:
        """Begin without lanes; `order` hands them over.

        Args:
            total: number of lanes of the run.
            sessions: of each lane in one iteration.
            seats: sessions that are played at the same time.
            temperature: of sampling.
            seed: of sampling in lockstep, so that sessions repeat exactly; None: lanes do not wait for one another.
            books: of the asks that training pays for.
            deadline_s: longest wait for one step of a session, seconds.
        """
        self._engine = engine
        self._environment = environment
        self._rules = rules
        self._total = total
        self._sessions = sessions
        self._seats = Seats(seats, changed=self._seats_changed)
        self._temperature = temperature
        self._seed = seed
        self._books = books
        self._deadline_s = deadline_s
        self._seated: dict[int, _Seated] = {}
        self._waiting: list[tuple[int, int, int]] = []  # heap: sessions played, order of coming, number of the lane
        self._resting: list[int] = []  # lanes that may not play before `allowed` grows
        self._coming = itertools.count()
        self._orders = Orders(number=0, allowed=0, paused=False)
        self._bought: dict[str, list[Receipt]] = {}  # by stream, paid by earlier attempts
        self._tasks: set[asyncio.Task[None]] = set()
        self._lockstep = False  # a slice is being played in lockstep
        # For the next report:
        self._news = asyncio.Event()
        self._played: list[Played] = []
        self._returned: list[Returned] = []
        self._parts: list[Part] = []
        self._evaluated = 0
        self._evaluating = False
        self._failure: str | None = None
        self._fatal: AgileError | OSError | None = None

    # Orders and reports.

    def order(self, orders: Orders) -> None:
        """Carry out orders; call it on the event loop, in the order in which they were sent.

        A lane that is leased and is here breaks the contract: the report says so, and the run ends.
        """
        self._orders = orders
        for receipt in orders.bought:
            self._bought.setdefault(AskKey.parse(receipt.key).stream, []).append(receipt)
        for lease in orders.leases:
            if lease.number in self._seated:  # it would play in two seats at once; nobody waits for this call
                where = f"Player: lane {lease.number} is leased to one player at a time, and it is here"
                self._fatal = ContractError(where)
                break
            begun = 0 if lease.position is None else lease.position.round
            self._seated[lease.number] = _Seated(lease=lease, played=lease.played, round=begun)
            self._resting.append(lease.number)
        resting, self._resting = self._resting, []
        for number in resting:
            self._queue(number)
        if orders.recalls:
            self._waiting.sort()  # it stays a heap
            kept = max(0, len(self._waiting) - orders.recalls)
            for _, _, number in self._waiting[kept:]:  # those that a seat would take last
                self._hand_back(number)
            del self._waiting[kept:]
        if orders.errand is not None:
            self._evaluated, self._evaluating = 0, True
            self._begin(self._evaluate(orders.errand))
        self._fill()
        self._news.set()

    async def report(self, wait_s: float) -> Report:
        """What has happened since the last report; waits up to `wait_s` seconds for something to happen."""
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        found = Report(
            orders=self._orders.number,
            playing=self._seats.taken,
            waiting=len(self._waiting),
            free=self._seats.free,
            asking=self._seats.asking,
            parks=self._seats.parks,
            played=self._played,
            returned=self._returned,
            parts=self._parts,
            evaluated=self._evaluated,
            evaluating=self._evaluating,
            failure=self._failure,
            fatal=self._fatal,
        )
        self._played, self._returned, self._parts = [], [], []
        self._seats.parks = 0
        return found

    def close(self) -> None:
        """Stop playing."""
        for task in self._tasks:
            task.cancel()

    # Lanes.

    def _queue(self, number: int) -> None:
        """Let a lane wait for a seat, or for a later version."""
        played = self._seated[number].played
        if played < self._orders.allowed:
            heapq.heappush(self._waiting, (played, next(self._coming), number))
        else:
            self._resting.append(number)

    def _fill(self) -> None:
        """Give free seats to the lanes that are furthest behind; of equals, to those whose sessions have begun."""
        if self._orders.paused or not self._may_go_on:
            return
        if self._seed is not None:
            if self._waiting and not self._lockstep:
                self._lockstep = True
                self._begin(self._play_in_lockstep())
            return
        while self._seats.free:
            behind = self._seats.behind
            if behind is not None and (not self._waiting or behind <= self._waiting[0][0]):
                self._seats.resume()
                continue
            if not self._waiting:
                return
            self._seats.take()
            self._begin(self._play_next(heapq.heappop(self._waiting)[2]))

    def _seats_changed(self) -> None:
        self._fill()
        self._news.set()

    @property
    def _may_go_on(self) -> bool:
        return self._failure is None and self._fatal is None

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)  # asyncio keeps only a weak reference to a task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play_next(self, number: int) -> None:
        if await self._attempt(number, self._seating(seats=self._seats.number, greedy=False).seat(0)):
            self._queue(number)
        self._seats.leave()
        self._seats_changed()

    async def _play_in_lockstep(self) -> None:
        """Play what the lanes may play: seat s of S plays lanes s, s + S, ... of this player, in order of number."""
        numbers = sorted(number for _, _, number in self._waiting)
        self._waiting.clear()
        seats = min(self._seats.number, len(numbers))
        seating = self._seating(seats=seats, greedy=False)
        self._seats.taken += seats

        async def sit(seat: int) -> None:
            policy = seating.seat(seat)
            for number in numbers[seat::seats]:
                kept = True
                while kept and self._may_go_on and self._seated[number].played < self._orders.allowed:
                    kept = await self._attempt(number, policy)
                if kept:
                    self._queue(number)
            seating.leave(seat)
            self._seats.leave()

        await asyncio.gather(*(sit(seat) for seat in range(seats)))
        self._lockstep = False
        self._seats_changed()

    async def _attempt(self, number: int, policy: Writer) -> bool:
        """Play one session of a lane; whether the lane is still here."""
        seated = self._seated[number]
        lease = seated.lease
        try:
            lane = self._next_stream(seated)
            moment = lane.memory.moment
            if lease.fault is not None and seated.played == lease.played:
                session = lane.give_up(lease.fault)
            else:
                keeps = self._seed is not None  # the others of a batch wait for it
                session = await self._play(lane, _Guarded(policy), behind=seated.played, keeps=keeps)
        except _EngineFailedError as error:
            self._failure = self._failure or str(error)
            self._news.set()
            return True
        except (AgileError, OSError) as error:
            if isinstance(error, DeadlineError) or not (isinstance(error, AgileError) or is_full_disk(error)):
                self._hand_back(number, fault=described(error))
                return False
            self._fatal = error
            self._news.set()
            return True
        except Exception as error:  # noqa: BLE001  whatever the environment's code raises, only this session ends
            self._hand_back(number, fault=described(error))
            return False
        seated.played += 1
        position = LanePosition(number=number, round=seated.round, state=lane.state(moment))
        self._played.append(Played(number=number, epoch=lease.epoch, session=session, position=position))
        self._news.set()
        return True

    def _hand_back(self, number: int, *, fault: str | None = None) -> None:
        seated = self._seated.pop(number)
        bought = seated.lane.bought if fault is not None and seated.lane is not None else ()
        self._returned.append(Returned(number=number, epoch=seated.lease.epoch, fault=fault, bought=bought))
        self._news.set()

    def _next_stream(self, seated: _Seated) -> Lane:
        """The lane, in a stream that has a session left."""
        if seated.lane is None:
            position = seated.lease.position
            seated.lane = self._open(seated)
            if position is not None:
                if seated.lane.stream.id != position.state.stream:
                    raise ConfigError(
                        f"resume: lane {position.number} played stream {position.state.stream} in the checkpoint, but "
                        f"plays {seated.lane.stream.id} in this run"
                    )
                seated.lane.restore(position.state)
            seated.lane.own(seated.lease.bought)
        if seated.lane.finished:
            seated.round += 1
            seated.lane = self._open(seated)
        return seated.lane

    def _open(self, seated: _Seated) -> Lane:
        stream = self._stream(seated.lease.number, seated.round)
        lane = Lane(
            stream,
            self._rules,
            asks=lambda key: self._books.ask(self._iteration(seated), key),
            bought=lambda receipt: self._books.buy(self._iteration(seated), receipt),
            # Both also without credit: a replay of the stored sessions may compute another one.
            looks_ahead=True,
            imagines=True,
        )
        lane.own(self._bought.get(stream.id, ()))
        return lane

    def _stream(self, number: int, finished: int) -> Stream:
        return self._environment.stream(split="train", index=number + finished * self._total)

    def _iteration(self, seated: _Seated) -> int:
        """The iteration, from 1, that the lane's next session belongs to."""
        return seated.played // self._sessions + 1

    async def _play(self, lane: Lane, policy: Policy, *, behind: int, keeps: bool) -> Session:
        return await play_session(
            lane,
            policy,
            deadline_s=self._deadline_s,
            stepped=lambda: None,
            waits=lambda: self._seats.wait(behind, keeps=keeps),
        )

    def _seating(self, *, seats: int, greedy: bool) -> Seating:
        temperature = 0.0 if greedy else self._temperature
        if greedy or self._seed is not None:
            return Lockstep(self._engine, seats=seats, temperature=temperature, seed=self._seed or 0)
        return EnginePolicy(self._engine, temperature=temperature)

    async def spread(self, numbers: Sequence[int], shares: AskingShares, *, seed: int) -> list[LanePosition]:
        """Grow the memories of lanes that begin inside their first streams.

        Args:
            numbers: of the lanes, which need not be here.
            shares: of the sessions that asked, by which memories are grown.
            seed: root seed of the run.
        """
        found: list[LanePosition] = []
        for number in numbers:
            stream = self._environment.stream(split="train", index=number)
            place = first_position(stream, number=number, lanes=self._total, sessions=self._sessions)
            state = await head_start(self._environment, stream, self._rules, position=place, shares=shares, seed=seed)
            found.append(LanePosition(number=number, round=0, state=state))
            await asyncio.sleep(0)  # scripts never wait, so nothing else could run in between
        return found

    # Evaluations.

    async def _evaluate(self, errand: Errand) -> None:
        """Play streams with empty memories, as many at once as there are seats. Greedy ones play in lockstep."""
        shares = balanced(errand.plays, shares=min(len(errand.plays), self._seats.number))
        seating = self._seating(seats=len(shares), greedy=errand.greedy)

        async def sit(seat: int) -> None:
            for one in shares[seat]:
                async for part in self._play_stream(one, errand, _Guarded(seating.seat(seat))):
                    self._parts.append(part)
                    self._news.set()
            seating.leave(seat)

        tasks: list[asyncio.Future[None]] = []
        try:
            await self._engine.forget()
            tasks = [asyncio.ensure_future(sit(seat)) for seat in range(len(shares))]
            await asyncio.gather(*tasks)
        except (_EngineFailedError, EngineError, DeadlineError) as error:
            self._failure = self._failure or str(error)
        except (AgileError, OSError) as error:
            self._fatal = error
        except Exception as error:  # noqa: BLE001  an evaluation leaves out no session, so another attempt is made
            self._failure = self._failure or described(error)
        finally:
            for task in tasks:
                task.cancel()
            self._evaluating = False
            self._news.set()

    async def _play_stream(self, play: Play, errand: Errand, policy: Writer) -> AsyncIterator[Part]:
        lane = Lane(self._environment.stream(split=errand.split, index=play.index), self._rules)
        if play.begun is not None:
            lane.restore(play.begun)
        measured: Lane = lane
        plays: Policy = policy
        if errand.guide is not None:
            measured = errand.guide.measured(lane, self._rules)
            plays = errand.guide.policy(self._environment, policy)
        sessions: list[Session] = []
        last, moment = time.monotonic(), lane.memory.moment
        while lane.position < play.sessions:
            measured.memory, measured.position = lane.memory, lane.position
            sessions.append(await self._play(measured, plays, behind=0, keeps=True))
            self._evaluated += 1
            await grow(lane, measured, self._environment)
            ends = lane.position == play.sessions
            if ends or (errand.keeps and time.monotonic() - last > PART_S):
                yield Part(index=play.index, sessions=tuple(sessions), state=None if ends else lane.state(moment))
                sessions, last, moment = [], time.monotonic(), lane.memory.moment


class _Guarded:
    """A policy whose failure is told apart from that of the session that it plays."""

    def __init__(self, policy: Writer) -> None:
        self._policy = policy

    async def write(self, view: Prompt) -> Completion:
        try:
            return await self._policy.write(view)
        except (EngineError, DeadlineError) as error:
            raise _EngineFailedError(str(error)) from error
