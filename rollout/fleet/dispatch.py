"""Deals lanes to rollout actors, follows what they report, and replaces those that die or hang. Without Ray.

Each actor has one task, which lives as long as the fleet:

    hire     a process starts, and its engine
    bring    the live weights are loaded and checked; nothing is played before
    follow   lanes are dealt, reports are taken
    lose     the process is killed, its lanes go on elsewhere from their last session boundary; hire again,
             but not while the engines sleep and others use their GPUs (`cluster.colocate`)

Whatever is lost, no session is: a session that was not reported is played again, and what its first attempt paid for
is read from the books of the dead process. What a dead process said last is not listened to: its task has ended, and
its lanes have another epoch.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from agile_ray.errors import AgileError, DeadlineError, EngineError
from agile_ray.evaluation.plays import Part, Play
from agile_ray.scripted.head_start import AskingShares
from agile_ray.types import Receipt, Session
from agile_ray.weights import WeightsRef
from rollout.fleet.lanes import Lanes
from rollout.fleet.messages import Errand, LanePosition, Lease, Orders, Report

HEARTBEAT_S = 120.0
"""Longest time without a report, seconds: an actor's event loop that is silent for longer hangs."""
REPORT_S = 1.0
"""How long an actor may keep a report back if nothing happens, seconds."""
GATHER_S = 0.02
"""Time between two reports of one actor, seconds, so that a report holds many sessions."""
PULSE_S = 1.0
"""Longest time between two looks at what is waited for, seconds."""
LOSSES = 3
"""Losses of actors, beyond one for each, without a batch or an evaluation in between, that a run survives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """What a dead process has in its books, for sessions that are in no batch."""

    receipts: Sequence[Receipt] = ()
    unsure: int = 0  # asks whose answers are not known


class Worker(Protocol):
    """The driver's side of one rollout actor's process.

    Calls raise EngineError if the process died or its engine failed, DeadlineError if they take too long, and what the
    actor raises.
    """

    async def start(self) -> None: ...

    async def load(self, weights: WeightsRef) -> None: ...

    def order(self, orders: Orders) -> None: ...  # sends them, and waits for nothing

    async def report(self, wait_s: float) -> Report: ...

    async def spread(self, numbers: Sequence[int], shares: AskingShares) -> list[LanePosition]: ...

    async def reopen(self) -> None: ...  # opens lanes with the settings that hold now

    async def sleep(self) -> None: ...  # its engine leaves the GPU

    async def wake(self) -> None: ...  # and comes back

    async def kill(self) -> None: ...  # returns once it is dead

    def bought(self) -> Bought: ...  # once it is dead


@dataclass(eq=False, slots=True)
class _Member:
    """One actor: the process that stands for it now."""

    index: int
    worker: Worker
    started: bool = False  # its engine runs
    serving: bool = False  # it has the live weights, and may play
    weights: WeightsRef | None = None  # that it serves; None: those it started with
    orders: int = 0  # sent
    obeyed: float = 0.0  # when a report last showed that orders were carried out, or that none were left; loop time
    lanes: int = 0
    report: Report | None = None  # the latest one
    thief: int | None = None  # the actor that gets the lanes that this one hands back
    failure: AgileError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def rests(self) -> bool:
        """No session of its lanes has a seat, and none begins; parked ones go on when play does."""
        return self.report is not None and self.report.orders == self.orders and not self.report.playing

    @property
    def spare(self) -> int:
        """Lanes that wait for a seat and have not been called back."""
        return self.report.waiting if self.report is not None and self.thief is None else 0

    def has_evaluated(self, *, since: int) -> bool:
        """Whether the evaluation that came with these orders has ended."""
        return self.report is not None and self.report.orders >= since and not self.report.evaluating


@dataclass(slots=True)
class _Evaluation:
    """An evaluation that is running."""

    take: Callable[[Part], None]
    evaluated: Counter[int] = field(default_factory=Counter)  # sessions by actor


class Fleet:
    """All rollout actors of a run. Every method runs on one event loop."""

    def __init__(
        self,
        hire: Callable[[int, int], Worker],
        *,
        actors: int,
        lanes: Lanes,
        lockstep: bool,
        brings: bool = True,
        heartbeat_s: float | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin without actors; `start` hires them.

        Args:
            hire: starts the process of an actor: its index, and how many it has had before.
            actors: their number.
            lanes: of the run.
            lockstep: lanes stay with their actors, which play them in lockstep.
            brings: weights can be loaded by one actor alone; otherwise a fresh one waits for `Fleet.served`.
            heartbeat_s: longest time without a report of an actor; None: `HEARTBEAT_S`.
            say: called with a line about every actor that is replaced: why, and with what deadline if it hung.
        """
        self.lanes = lanes
        self._hire = hire
        self._actors = actors
        self._lockstep = lockstep
        self._brings = brings
        self._heartbeat_s = HEARTBEAT_S if heartbeat_s is None else heartbeat_s
        self._say = say
        self._members: list[_Member] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._weights: WeightsRef | None = None
        self._paused = False
        self._asleep = False  # the engines' GPUs are for others
        self._bought: list[Receipt] = []  # paid by attempts at sessions that are played again
        self._evaluation: _Evaluation | None = None
        self._reasons: list[str] = []  # of the losses since the latest batch or evaluation
        self._started = False
        self._fatal: BaseException | None = None
        self._pulse = asyncio.Event()
        self.counts: Counter[str] = Counter()
        """What has happened since it was emptied: `replaced`, `retried_lanes`, `unsure_asks`, `refused_sessions`,
        and `parked`: sessions that gave up their seats."""

    # The life of an actor.

    async def start(self) -> None:
        """Hire every actor.

        Raises:
            AgileError: one of them did not start.
        """
        self._members = [_Member(index=index, worker=self._hire(index, 0)) for index in range(self._actors)]
        self._tasks = [asyncio.ensure_future(self._tend(index)) for index in range(self._actors)]
        await self._until(lambda: all(member.serving for member in self._members))
        self._started = True

    @property
    def workers(self) -> list[Worker]:
        """The actors' present processes."""
        return [member.worker for member in self._members]

    async def close(self) -> None:
        """Stop following the actors; their processes are left as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tend(self, index: int) -> None:
        hired = 0
        while self._fatal is None:
            member = self._members[index]
            try:
                await self._serve(member)
            except (EngineError, DeadlineError) as error:
                if not self._started:
                    return self._end(error)
                await self._lose(member, member.failure or error)
            except Exception as error:  # noqa: BLE001  raised again by whoever waits
                return self._end(error)
            hired += 1
            if self._fatal is None:
                await self._until(lambda: not self._asleep)
                self._members[index] = _Member(index=index, worker=self._hire(index, hired))
                self._changed()
        return None

    async def _serve(self, member: _Member) -> None:
        """From the start of a process until it is lost; returns by an error."""
        await member.worker.start()
        member.started = True
        self._changed()
        await self._bring(member)
        member.serving = True
        self._send(member, bought=self._bought)
        self._deal()
        self._changed()
        while member.failure is None:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    report = await member.worker.report(REPORT_S)
            except TimeoutError as error:
                raise DeadlineError(
                    f"rollout: actor {member.index} must report within {self._heartbeat_s:g} s, it did not"
                ) from error
            self._take(member, report)
            await asyncio.sleep(GATHER_S)
        raise member.failure

    async def _bring(self, member: _Member) -> None:
        """Load the live weights, and again if others have become live meanwhile."""
        async with member.lock:
            while member.weights is not self._weights:
                if not self._brings:
                    await self._until(lambda: member.weights is self._weights)
                elif self._weights is not None:
                    weights = self._weights
                    await member.worker.load(weights)
                    member.weights = weights

    def _take(self, member: _Member, report: Report) -> None:
        self._check_orders(member, report)
        member.report = report
        if report.parks:
            self.counts["parked"] += report.parks
        self._take_lanes(member, report)
        if self._evaluation is not None:
            for part in report.parts:
                self._evaluation.take(part)
                self._reasons.clear()
            self._evaluation.evaluated[member.index] = report.evaluated
        if report.fatal is not None:
            raise report.fatal
        if report.failure is not None:
            raise EngineError(f"rollout: actor {member.index}: {report.failure}")
        if report.orders == member.orders:
            member.thief = None
        if report.returned:
            self._deal()
        self._balance(member)
        self._changed()

    def _check_orders(self, member: _Member, report: Report) -> None:
        """Orders that are lost would let everybody wait for ever: the actor waits for them, the fleet for the lanes."""
        now = asyncio.get_running_loop().time()
        before = 0 if member.report is None else member.report.orders
        if report.orders == member.orders or report.orders > before or member.report is None:
            member.obeyed = now
        elif now - member.obeyed > self._heartbeat_s:
            raise DeadlineError(
                f"rollout: actor {member.index} must carry out its orders within {self._heartbeat_s:g} s, it has "
                f"carried out {report.orders} of {member.orders}"
            )

    def _take_lanes(self, member: _Member, report: Report) -> None:
        for played in report.played:
            if not self.lanes.take(played):
                self.counts["refused_sessions"] += 1
        for returned in report.returned:
            self.lanes.take_back(returned)
            member.lanes -= 1
            if returned.fault is None and member.thief is not None:
                self.lanes.move(returned.number, member.thief)

    async def _lose(self, member: _Member, error: AgileError) -> None:
        """Take the lanes of an actor back, and make sure that it is dead."""
        member.serving = False
        lanes = self.lanes.lose(member.index)
        with suppress(EngineError, DeadlineError):
            await member.worker.kill()
        found = member.worker.bought()
        self._bought += found.receipts
        self.counts.update({"replaced": 1, "retried_lanes": lanes, "unsure_asks": found.unsure})
        self._reasons.append(str(error))
        if len(self._reasons) > LOSSES + self._actors:
            reason, times = Counter(self._reasons).most_common(1)[0]
            return self._end(
                EngineError(
                    f"rollout: actors were lost {len(self._reasons)} times while no batch was finished, {times} of "
                    f"them by: {reason}"
                )
            )
        self._say(f"actor {member.index} is replaced: {error}")
        for other in self._members:
            if other.serving:
                self._send(other, bought=found.receipts)
        self._deal()
        return None

    def _end(self, error: BaseException) -> None:
        self._fatal = self._fatal or error
        self._changed()

    # Orders.

    def _send(
        self,
        member: _Member,
        *,
        leases: Iterable[Lease] = (),
        recalls: int = 0,
        bought: Iterable[Receipt] = (),
        errand: Errand | None = None,
    ) -> None:
        member.orders += 1
        orders = Orders(
            number=member.orders,
            allowed=self.lanes.allowed,
            paused=self._paused,
            leases=tuple(leases),
            recalls=recalls,
            bought=tuple(bought),
            errand=errand,
        )
        member.lanes += len(orders.leases)
        member.worker.order(orders)

    def _send_all(self) -> None:
        for member in self._members:
            if member.serving:
                self._send(member)

    def _deal(self) -> None:
        """Give lanes that nobody plays to actors that serve: back to where they were, else to who has the fewest."""
        serving = {member.index: member for member in self._members if member.serving}
        if not (serving and self.lanes.is_open):
            return
        loads = {index: member.lanes for index, member in serving.items()}
        dealt: dict[int, list[Lease]] = {}
        for lane in self.lanes.unowned():
            if lane.home in serving and (self._lockstep or not lane.faulty or len(serving) == 1):
                actor = lane.home
            elif self._lockstep:
                continue
            else:
                actor = min((index for index in loads if index != lane.home), key=lambda index: loads[index])
            loads[actor] += 1
            dealt.setdefault(actor, []).append(self.lanes.lease(lane.number, actor))
        for actor, leases in dealt.items():
            self._send(serving[actor], leases=leases)

    def _balance(self, member: _Member) -> None:
        """If an actor has free seats and no lane that could take one, let it have lanes that wait elsewhere."""
        mine = member.report
        if self._lockstep or self._paused or mine is None or mine.orders < member.orders:
            return
        waiting = [other for other in self._members if other.serving and other.spare > 0]
        if not (mine.free and not mine.waiting and waiting):
            return
        other = max(waiting, key=lambda one: one.spare)
        self._send(other, recalls=min(mine.free, -(-other.spare // 2)))
        other.thief = member.index

    # What the driver asks for.

    async def collect(self) -> list[Session]:
        """The sessions of the next batch, lane by lane in stream order; from the first call on, lanes play.

        Raises:
            AgileError: the run can't go on.
        """
        self.want()
        await self._until(lambda: self.lanes.is_complete)
        self._reasons.clear()
        return self.lanes.collect()

    def want(self) -> None:
        """Ask for the next batch."""
        self.open()
        before = self.lanes.allowed
        self.lanes.want()
        if self.lanes.allowed != before:
            self._send_all()

    def open(self, bought: Sequence[Receipt] = ()) -> None:
        """Let the lanes play, if they do not yet.

        Args:
            bought: paid by attempts at sessions that are played again.
        """
        if self.lanes.is_open:
            return
        self._bought = [*bought]
        self.lanes.open(0 if self._weights is None else self._weights.version)
        for member in self._members:
            if member.serving:
                self._send(member, bought=bought)
        self._deal()

    async def load(self, weights: WeightsRef) -> None:
        """Serve a version on every engine, and check it there. An actor that is lost meanwhile is replaced.

        Raises:
            SyncError: an engine refused the version, or does not serve it.
        """
        self._weights = weights
        await asyncio.gather(*(self._load_on(member) for member in self._members if member.serving))
        self._serve_version(weights)

    async def _load_on(self, member: _Member) -> None:
        try:
            await self._bring(member)
        except (EngineError, DeadlineError) as error:
            member.failure = error

    def served(self, weights: WeightsRef) -> None:
        """Every engine serves a version that was loaded into all of them together."""
        self._weights = weights
        for member in self._members:
            member.weights = weights
        self._serve_version(weights)

    def _serve_version(self, weights: WeightsRef) -> None:
        self.lanes.serve(weights.version)
        self._send_all()
        self._changed()

    @property
    def weights(self) -> WeightsRef | None:
        """The live version."""
        return self._weights

    @property
    def needs_weights(self) -> bool:
        """Whether a fresh actor waits for weights that are loaded into all engines together."""
        return not self._brings and any(one.started and one.weights is not self._weights for one in self._members)

    async def until_started(self) -> None:
        """Wait until every actor's engine runs."""
        await self._until(lambda: all(member.started for member in self._members))

    async def until_complete(self) -> None:
        """Wait until the next batch is complete, or a fresh actor waits for weights (`needs_weights`)."""
        await self._until(lambda: self.lanes.is_complete or self.needs_weights)

    async def drain(self) -> None:
        """Let no session begin or go on, and wait for those that have a seat; `resume` ends it.

        Parked sessions stay parked, also when their answers come.
        """
        self._paused = True
        self._send_all()
        await self._until(lambda: all(member.rests for member in self._members if member.serving))

    def resume(self) -> None:
        """Let sessions begin again."""
        self._paused = False
        self._send_all()
        self._deal()

    async def evaluate(
        self, left: Callable[[int], Sequence[Play]], errand: Errand, *, take: Callable[[Part], None]
    ) -> None:
        """Play streams on all actors, while the lanes rest; versions are held.

        Args:
            left: what is left to play for an actor, by its index.
            errand: how; its `plays` are not used.
            take: called with every part, once; those of one stream come in order.

        Raises:
            AgileError: the run can't go on; or what `take` raised.
        """
        await self.drain()
        self._evaluation = _Evaluation(take=take)
        try:
            await asyncio.gather(*(self._evaluate_on(index, left, errand) for index in range(self._actors)))
        finally:
            self._evaluation = None
            self._reasons.clear()
            self.resume()

    async def _evaluate_on(self, index: int, left: Callable[[int], Sequence[Play]], errand: Errand) -> None:
        while plays := left(index):
            await self._until(lambda: self._members[index].serving)
            member = self._members[index]
            self._send(member, errand=replace(errand, plays=plays))
            began = member.orders
            await self._until(
                lambda member=member, began=began: not member.serving or member.has_evaluated(since=began)
            )

    @property
    def evaluated(self) -> int:
        """Sessions that the running evaluation has finished."""
        return 0 if self._evaluation is None else self._evaluation.evaluated.total()

    @property
    def asking(self) -> int:
        """Sessions that wait for a slow expert."""
        return sum(one.report.asking for one in self._members if one.serving and one.report is not None)

    async def spread(self, shares: AskingShares) -> None:
        """Move every lane to the place where it begins in its first stream, before anything is played."""

        async def on(index: int) -> None:
            while True:
                await self._until(lambda: self._members[index].serving)
                member = self._members[index]
                try:
                    return self.lanes.place(await member.worker.spread(self.lanes.homes(index), shares))
                except (EngineError, DeadlineError) as error:
                    member.failure = error
                    await self._until(lambda member=member: not member.serving)

        await asyncio.gather(*(on(index) for index in range(self._actors)))

    async def sleep(self) -> None:
        """Let every engine leave its GPU. Until `wake` no lost actor is replaced, since a fresh engine needs a GPU.

        Raises:
            DeadlineError: an engine stays, and its process can't be killed.
        """
        await self._until(lambda: all(member.serving for member in self._members))
        self._asleep = True
        await asyncio.gather(*(self._move(member, member.worker.sleep) for member in self._members))

    async def wake(self) -> None:
        """Let every engine come back to its GPU, and replace the actors that were lost meanwhile.

        Raises:
            DeadlineError: an engine does not come back, and its process can't be killed.
        """
        self._asleep = False
        self._changed()
        await asyncio.gather(*(self._move(member, member.worker.wake) for member in self._members if member.serving))

    async def _move(self, member: _Member, move: Callable[[], Awaitable[None]]) -> None:
        """Let an engine leave its GPU or come back. One that fails is killed at once, so that the GPU is free."""
        try:
            await move()
        except (EngineError, DeadlineError) as error:
            member.failure = error
            await member.worker.kill()

    async def reopen(self, lanes: Lanes, *, lockstep: bool) -> None:
        """Play other lanes on the running engines. An actor that is lost meanwhile is replaced.

        Raises:
            AgileError: the run can't go on; or an actor can't play with the settings that hold now.
        """
        await self.drain()
        self.lanes, self._lockstep, self._bought = lanes, lockstep, []
        await asyncio.gather(*(self._reopen_on(index) for index in range(self._actors)))
        self.resume()

    async def _reopen_on(self, index: int) -> None:
        await self._until(lambda: self._members[index].started)
        member = self._members[index]
        member.lanes, member.thief = 0, None
        try:
            await member.worker.reopen()
        except (EngineError, DeadlineError) as error:
            member.failure = error

    # Waiting.

    async def _until(self, reached: Callable[[], bool]) -> None:
        while True:
            if self._fatal is not None:
                raise self._fatal
            if reached():
                return
            self._pulse.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(PULSE_S):
                    await self._pulse.wait()

    def _changed(self) -> None:
        self._pulse.set()
