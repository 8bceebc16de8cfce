"""Rollout actors without Ray, engines or processes: a player whose policy is a script that takes its time."""

import asyncio
import pickle
import random
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from agile_ray.agent.expert import Advice
from agile_ray.config import Agent, Memory
from agile_ray.errors import EngineError
from agile_ray.record.receipts import Journals, read_journals
from agile_ray.scripted.references import Habits, reference
from agile_ray.weights import WeightsRef
from envs.recurring import Recurring
from rollout.fleet.dispatch import Bought, Fleet
from rollout.fleet.in_order import InOrder
from rollout.fleet.lanes import Lanes
from rollout.fleet.messages import Errand, Lease, Orders
from rollout.player import Player
from tests.fakes import clock
from tests.fakes.engine import FakeEngine
from tests.fakes.streams import script_rules

WORLD = Recurring(seed=0)


def version(number):
    """A version without weights."""
    return WeightsRef(version=number, buckets=(), blobs=(), probes=())


class CountingExpert:
    """Answers truly, and counts how often it is paid for each ask."""

    source, reliability = "counting", 1.0

    def __init__(self):
        self.asked = Counter()

    async def advise(self, question, *, key):
        self.asked[str(key)] += 1
        return Advice(text=question.advice, answer=question.answer)


class Books:
    """The books of one process."""

    def __init__(self):
        self.asks, self.receipts = [], {}

    def ask(self, iteration, key):
        self.asks.append((iteration, key))

    def buy(self, iteration, receipt):
        self.receipts[receipt.key] = (iteration, receipt)


class SlowPolicy:
    """Plays by a script, which asks in some sessions, and takes a random time for each turn."""

    def __init__(self, rig, engine, worker):
        self.rig, self.engine, self.worker = rig, engine, worker
        self.script = reference("always_ask", WORLD, Habits())

    async def write(self, view):
        await asyncio.sleep(self.rig.delay())
        self.rig.turns += 1
        if self.engine.fails_in == "generate":
            raise EngineError("lost")
        broken = self.rig.broken.get((view.stream.id, view.position))
        if broken is not None and view.advised:
            raise broken
        written = await self.script.write(view)
        return replace(written, versions=np.full(len(written.ids), self.engine.version, np.int32))

    def seat(self, number):
        del number
        return self

    def leave(self, number):
        pass


class FakeWorker:
    """One process. It can die, hang, and fail to start."""

    def __init__(self, rig, index, hired):
        self.rig, self.index, self.hired = rig, index, hired
        self.engine = FakeEngine()
        self.name = f"{index}.{hired}.{rig.start}"
        self.books = Books() if rig.journals is None else Journals(rig.journals, self.name)
        self.dead = self.hung = self.asleep = False
        self.stays = None  # the call that it fails in: sleep or wake
        self.loaded = []
        self.played_before_loading = 0
        self.player = self.build()
        self.orders = InOrder(lambda orders: self.player.order(orders))
        self.loses = None  # the number of the orders that do not arrive

    def build(self):
        rig, worker = self.rig, self

        class Slow(Player):
            def _seating(self, *, seats, greedy):
                if rig.lockstep:
                    return super()._seating(seats=seats, greedy=greedy)
                return SlowPolicy(rig, worker.engine, worker)

        return Slow(
            engine=self.engine,
            environment=WORLD,
            rules=rig.rules,
            total=rig.total,
            sessions=rig.sessions,
            seats=rig.seats,
            temperature=1.0,
            seed=0 if rig.lockstep else None,
            books=self.books,
            deadline_s=rig.deadline_s,
        )

    def check(self):
        if self.dead:
            raise EngineError(f"actor {self.index} died")

    async def start(self):
        await asyncio.sleep(self.rig.start_s)
        self.check()

    async def load(self, weights):
        await asyncio.sleep(self.rig.load_s)
        self.check()
        self.engine.version = weights.version
        self.loaded.append(weights.version)

    def order(self, orders):
        """Let orders arrive a little later, and so sometimes after those that were sent after them."""
        arriving = pickle.loads(pickle.dumps(orders))
        asyncio.get_running_loop().call_later(self.rig.delay(), self.arrive, arriving)

    def arrive(self, orders):
        if not self.dead and not self.hung and orders.number != self.loses:
            self.orders.take(orders)

    async def report(self, wait_s):
        while self.hung and not self.dead:
            await asyncio.sleep(0.005)
        self.check()
        found = pickle.loads(pickle.dumps(await self.player.report(min(wait_s, 0.02))))
        self.check()
        return found

    async def spread(self, numbers, shares):
        self.check()
        return await self.player.spread(numbers, shares, seed=0)

    async def reopen(self):
        self.check()
        self.player.close()
        self.player = self.build()

    async def sleep(self):
        self.move("sleep")
        self.asleep = True

    async def wake(self):
        self.move("wake")
        self.asleep = False

    def move(self, call):
        self.check()
        if self.stays == call:
            raise EngineError("it stays where it is")

    async def kill(self):
        self.die()

    def die(self):
        """As by kill -9: nothing more comes from it."""
        self.dead = True
        self.player.close()

    def bought(self):
        if self.rig.journals is not None:
            found = read_journals(self.rig.journals.journals(self.name))
            return Bought(receipts=found.receipts, unsure=len(found.unsure))
        assert isinstance(self.books, Books)
        receipts = [receipt for _, receipt in self.books.receipts.values()]
        unsure = {key for _, key in self.books.asks} - self.books.receipts.keys()
        return Bought(receipts=receipts, unsure=len(unsure))


class Rig:
    """A fleet of fakes, and the knobs of its world. Use `async with`."""

    def __init__(
        self,
        *,
        actors=2,
        total=6,
        sessions=3,
        seats=2,
        max_age=0,
        batches=100,
        seed=0,
        slow_s=0.002,
        lockstep=False,
        heartbeat_s=60.0,
        expert=None,
        journals=None,
    ):
        self.total, self.sessions, self.seats, self.lockstep = total, sessions, seats, lockstep
        self.random = random.Random(seed)
        self.slow_s, self.start_s, self.load_s, self.deadline_s = slow_s, 0.0, 0.0, 30.0
        self.turns, self.broken = 0, {}
        self.expert, self.journals = expert or CountingExpert(), journals
        self.start = secrets.token_hex(3)
        agent = Agent(forced=True, turns=1, turn_tokens=2) if lockstep else Agent()
        self.rules = script_rules(WORLD, agent=agent, memory=Memory(threshold=0.65), expert=self.expert)
        self.workers = []
        self.actors, self.max_age, self.batches = actors, max_age, batches
        self.said = []
        self.fleet = Fleet(
            self.hire,
            actors=actors,
            lanes=self.lanes(),
            lockstep=lockstep,
            heartbeat_s=heartbeat_s,
            say=self.said.append,
        )

    def lanes(self):
        return Lanes(
            total=self.total,
            sessions=self.sessions,
            max_age=self.max_age,
            batches=self.batches,
            actors=self.actors,
        )

    def delay(self):
        return self.random.random() * self.slow_s

    def hire(self, index, hired):
        self.workers.append(FakeWorker(self, index, hired))
        return self.workers[-1]

    async def __aenter__(self):
        await self.fleet.start()
        return self

    async def __aexit__(self, *_):
        await self.fleet.close()
        for worker in self.workers:
            worker.player.close()

    async def train(self, batches, *, learn=lambda batch: None, first=0):
        """As the loop does: the batches."""
        found = []
        await self.fleet.load(version(first))
        for batch in range(first, first + batches):
            found.append(await self.fleet.collect())
            await asyncio.sleep(learn(batch) or 0)
            await self.fleet.load(version(batch + 1))
        return found


def play(rig, work: Callable):
    """Run `work(rig)` on a fleet that has started; no time passes but what is slept."""

    async def run():
        async with rig:
            return await work(rig)

    return clock.run(asyncio.wait_for(run(), 600))


def stations(sessions):
    """Which sessions these are."""
    return [(session.stream, session.position) for session in sessions]


def charged(sessions):
    """Keys of the asks that were paid for, of sessions and of their abandoned attempts."""
    return [receipt.key for one in sessions for receipt in (*one.receipts, *one.abandoned)]


def ages(batches, *, first=0):
    """Of every sampled token of every batch, the learner's version minus the token's."""
    return [
        [batch - int(one) for session in sessions for turn in session.turns for one in turn.versions]
        for batch, sessions in enumerate(batches, start=first)
    ]


class Alone:
    """A player that somebody gives some lanes, on an event loop of its own; calls block."""

    def __init__(self, player, *, numbers):
        self.player, self.numbers = player, list(numbers)
        self.loop = asyncio.new_event_loop()
        self.orders = self.allowed = self.epoch = 0
        self.places = dict.fromkeys(self.numbers)  # position of each lane, with its whole memory
        self.leased = False

    def order(self, **orders):
        self.orders += 1
        leases = ()
        if not self.leased:
            self.leased, self.epoch = True, self.epoch + 1
            leases = tuple(
                Lease(number=number, epoch=self.epoch, played=self.allowed, position=self.places[number])
                for number in self.numbers
            )
        if "errand" in orders:
            leases, self.leased = (), self.leased and not leases
        self.allowed += orders.pop("sessions", 0)
        self.player.order(Orders(number=self.orders, allowed=self.allowed, paused=False, leases=leases, **orders))

    def reports(self, ends):
        """Report after report, until one with which it ends; errors are raised."""
        while True:
            report = self.loop.run_until_complete(self.player.report(5.0))
            if report.fatal is not None:
                raise report.fatal
            if report.failure is not None:
                raise EngineError(report.failure)
            yield report
            if ends(report):
                return

    def collect(self, sessions):
        """Play this many sessions on every lane: lane by lane, each lane's sessions in stream order."""
        found = {number: [] for number in self.numbers}

        async def order():
            self.order(sessions=sessions)

        self.loop.run_until_complete(order())
        for report in self.reports(lambda _: all(len(one) == sessions for one in found.values())):
            for played in report.played:
                before = self.places[played.number]
                self.places[played.number] = played.position if before is None else before.then(played.position)
                found[played.number].append(played.session)
            assert not report.returned, report.returned
        return [session for number in self.numbers for session in found[number]]

    def positions(self):
        """Of every lane that has one."""
        return [place for place in self.places.values() if place is not None]

    def restore(self, positions):
        """Put lanes back."""
        self.places |= {position.number: position for position in positions}
        self.leased = False

    def spread(self, shares, *, seed=0):
        self.restore(self.loop.run_until_complete(self.player.spread(self.numbers, shares, seed=seed)))

    def evaluate(self, *plays, split="test", greedy=True, keeps=False, guide=None):
        """The parts of an evaluation."""
        errand = Errand(plays=plays, split=split, greedy=greedy, keeps=keeps, guide=guide)

        async def order():
            self.order(errand=errand)

        self.loop.run_until_complete(order())
        return [part for report in self.reports(lambda report: not report.evaluating) for part in report.parts]
