"""Sessions that wait for a slow expert give up their seats, and nothing is asked or paid twice for it."""

import asyncio
import random

import pytest

from agile_ray.agent.expert import Advice
from rollout import seats
from rollout.fleet import dispatch
from rollout.fleet.messages import Errand
from rollout.seats import Seats
from tests.fakes.fleet import CountingExpert, Rig, ages, charged, play, stations, version
from tests.rollout.fleet.test_dispatch import check, expected


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(dispatch, "GATHER_S", 0.001)
    monkeypatch.setattr(dispatch, "PULSE_S", 0.05)
    monkeypatch.setattr(seats, "PARK_S", 0.005)


class Person(CountingExpert):
    """Thinks, on the lanes' event loop; keeps each answer by its key, as a durable queue does."""

    patient = True

    def __init__(self, *, latency_s=0.03, seed=0):
        super().__init__()
        self.random, self.latency_s = random.Random(seed), latency_s
        self.answers = {}
        self.waiting = self.most = 0
        self.open = asyncio.Event()
        self.open.set()

    async def advise(self, question, *, key):
        if str(key) not in self.answers:
            self.asked[str(key)] += 1
            self.answers[str(key)] = Advice(text=question.advice, answer=question.answer)
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await asyncio.sleep(self.latency_s * self.random.lognormvariate(0.0, 1.0))
            await asyncio.wait_for(self.open.wait(), 30)
        finally:
            self.waiting -= 1
        return self.answers[str(key)]


async def reach(reached):
    async with asyncio.timeout(20):
        while not reached():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("max_age", [0, 2])
def test_more_sessions_wait_than_there_are_seats_and_batches_stay_the_same(max_age):
    rig = Rig(actors=2, total=12, seats=2, max_age=max_age, expert=Person())
    batches = play(rig, lambda rig: rig.train(4))
    check(batches, rig)
    assert rig.expert.most > 2 * 2
    assert rig.fleet.counts["parked"] > 0
    assert max(age for one in ages(batches) for age in one) <= max_age


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_that_dies_while_lanes_are_parked_asks_and_pays_nothing_twice(seed):
    person = Person(seed=seed)
    rig = Rig(actors=2, total=10, seats=2, max_age=seed % 2, seed=seed, expert=person)

    async def work(rig):
        async def strike():
            for _ in range(2):
                await reach(lambda: rig.fleet.asking >= 3)
                random.Random(seed).choice([one for one in rig.workers if not one.dead]).die()
                await asyncio.sleep(0.05)

        striking = asyncio.ensure_future(strike())
        batches = await rig.train(4)
        await striking
        return batches

    check(play(rig, work), rig)
    assert rig.fleet.counts["replaced"] == 2
    assert set(person.asked.values()) == {1}


def test_a_drain_an_evaluation_and_a_checkpoint_do_not_wait_for_parked_lanes():
    rig = Rig(actors=1, total=6, seats=2, max_age=1, expert=Person(latency_s=0.0))

    async def work(rig):
        await rig.fleet.load(version(0))
        rig.expert.open.clear()  # nobody answers
        rig.fleet.want()
        await reach(lambda: rig.fleet.asking == 6)
        assert list(rig.fleet.lanes.changes(whole=True)) == []  # between sessions nothing has happened yet
        await asyncio.wait_for(rig.fleet.drain(), 5)
        turns = rig.turns
        rig.expert.open.set()
        await reach(lambda: rig.expert.waiting == 0)
        await asyncio.sleep(0.05)
        assert rig.turns == turns  # answered sessions wait for the end of the drain
        rig.fleet.resume()
        batch = await rig.fleet.collect()
        rig.expert.open.clear()
        await reach(lambda: rig.fleet.asking == 6)
        errand = Errand(plays=(), split="test", greedy=False, keeps=False, guide=None)
        await asyncio.wait_for(rig.fleet.evaluate(lambda _: [], errand, take=lambda _: None), 5)
        await asyncio.wait_for(rig.fleet.sleep(), 5)
        await asyncio.wait_for(rig.fleet.wake(), 5)
        return batch

    batch = play(rig, work)
    assert stations(batch) == expected(0)
    assert len(charged(batch)) == len(set(charged(batch)))


def test_a_parked_session_goes_on_with_newer_weights_and_both_versions_are_stamped():
    rig = Rig(actors=1, total=2, seats=1, sessions=1, max_age=1, expert=Person(latency_s=0.0))

    async def work(rig):
        await rig.fleet.load(version(0))
        await rig.fleet.collect()
        rig.expert.open.clear()
        await reach(lambda: rig.fleet.asking == 2)  # in slice 1, begun at version 0
        await rig.fleet.load(version(1))
        rig.expert.open.set()
        return await rig.fleet.collect()

    found = {tuple(sorted({int(v) for turn in one.turns for v in turn.versions})) for one in play(rig, work)}
    assert found == {(0, 1)}


def test_parked_lanes_are_not_recalled_and_a_rest_of_waiting_lanes_is():
    rig = Rig(actors=2, total=12, seats=2, expert=Person(latency_s=0.05))
    batches = play(rig, lambda rig: rig.train(3))
    check(batches, rig)
    assert rig.fleet.counts["retried_lanes"] == 0
    assert set(rig.expert.asked.values()) == {1}


def test_in_lockstep_a_session_keeps_its_seat():
    rig = Rig(actors=1, total=4, seats=2, lockstep=True, expert=Person())
    batches = play(rig, lambda rig: rig.train(2))
    assert [stations(one) for one in batches] == [expected(n, total=4) for n in range(2)]
    assert rig.fleet.counts["parked"] == 0


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("seed", range(10))
def test_seats_are_conserved_under_random_schedules(number, seed):
    draw = random.Random(seed)
    seated, most, ended = set(), 0, []

    async def run():
        waiting = list(range(30))

        def fill():
            while one.free and (one.behind is not None or waiting):
                if one.behind is not None:
                    one.resume()
                else:
                    one.take()
                    tasks.append(asyncio.ensure_future(session(waiting.pop())))

        async def session(name):
            nonlocal most
            for _ in range(draw.randrange(3)):
                seated.add(name)
                most = max(most, one.taken)
                await asyncio.sleep(draw.random() * 0.004)
                try:
                    async with one.wait(name, keeps=False):
                        await asyncio.sleep(draw.random() * 0.02)
                        if draw.random() < 0.3:
                            raise ValueError
                except ValueError:
                    pass
                assert 0 < one.taken <= number
            ended.append(name)
            one.leave()
            fill()

        one, tasks = Seats(number, changed=lambda: fill()), []  # noqa: PLW0108  defined after it
        fill()
        await reach(lambda: len(ended) == 30)
        assert (one.taken, one.asking, one.behind) == (0, 0, None)
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert most <= number


def test_the_answered_session_of_the_lane_that_is_furthest_behind_goes_on_first():
    order = []

    async def run():
        one = Seats(1, changed=lambda: None)

        async def session(played):
            async with one.wait(played, keeps=False):
                await asyncio.sleep(0.02)
            order.append(played)

        one.taken = 3
        tasks = [asyncio.ensure_future(session(played)) for played in (7, 2, 5)]
        await reach(lambda: one.behind is not None and len(one._answered) == 3)
        tasks[1].cancel()  # its place in the queue is nobody's
        await asyncio.sleep(0)
        while one.behind is not None:
            one.resume()
            await asyncio.sleep(0.001)
            one.leave()

    asyncio.run(run())
    assert order == [5, 7]
