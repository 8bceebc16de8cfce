"""Overlap, seats, deaths and hangs on actors without Ray: every session once, every ask paid once, no token too old."""

import asyncio
import random
import re
from collections import Counter

import pytest

from agile_ray.errors import EngineError
from agile_ray.evaluation.plays import balanced, plays
from agile_ray.record.evaluations import PlayedParts
from envs.recurring import LENGTH
from rollout.fleet import dispatch
from rollout.fleet.messages import Errand
from tests.fakes.fleet import WORLD, Rig, ages, charged, play, stations, version


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(dispatch, "GATHER_S", 0.001)
    monkeypatch.setattr(dispatch, "PULSE_S", 0.05)


def expected(batch, *, total=6, sessions=3):
    """The sessions of a batch: those of the synchronous loop, whatever happens."""
    found = []
    for lane in range(total):
        for place in range(batch * sessions, (batch + 1) * sessions):
            index = lane + total * (place // LENGTH)
            found.append((f"recurring/train/0/{index}", place % LENGTH))
    return found


def check(batches, rig, *, first=0):
    """Every session once, in order; every ask paid once, and in the books of the sessions."""
    for number, sessions in enumerate(batches, start=first):
        assert stations(sessions) == expected(number, total=rig.total, sessions=rig.sessions)
    keys = Counter(key for sessions in batches for key in charged(sessions))
    assert set(keys.values()) == {1}
    again = sum(rig.expert.asked[key] - 1 for key in keys)
    assert again <= rig.fleet.counts["unsure_asks"]  # those whose answer was on its way
    ahead = rig.expert.asked.keys() - keys.keys()  # of sessions that are in no batch yet
    assert not ahead or rig.max_age


@pytest.mark.parametrize("seats", [1, 2, 8])
def test_without_overlap_batches_are_those_of_the_synchronous_loop(seats):
    rig = Rig(seats=seats)
    batches = play(rig, lambda rig: rig.train(9))
    check(batches, rig)
    assert {age for found in ages(batches) for age in found} == {0}


@pytest.mark.parametrize("max_age", [1, 2, 4])
@pytest.mark.parametrize("seed", range(2))
def test_lanes_play_ahead_while_the_learner_works_and_no_token_is_too_old(max_age, seed):
    rig = Rig(max_age=max_age, seed=seed)
    draw = random.Random(seed)
    batches = play(rig, lambda rig: rig.train(8, learn=lambda _: draw.random() * 0.1))
    check(batches, rig)
    found = [age for one in ages(batches) for age in one]
    assert 0 < max(found) <= max_age
    assert min(found) >= 0


def test_overlap_saves_the_time_of_the_learner():
    def seconds(max_age):
        rig = Rig(max_age=max_age, actors=1, total=4, seats=4, sessions=2, slow_s=0.02)

        async def work(rig):
            loop = asyncio.get_running_loop()
            begin = loop.time()
            await rig.train(5, learn=lambda _: 0.15)
            return loop.time() - begin

        return play(rig, work)

    assert seconds(1) < 0.85 * seconds(0)


def test_no_slice_is_begun_that_belongs_to_no_batch():
    rig = Rig(max_age=3, batches=4)
    batches = play(rig, lambda rig: rig.train(4, learn=lambda _: 0.05))
    check(batches, rig)
    assert rig.expert.asked.keys() == {key for sessions in batches for key in charged(sessions)}


@pytest.mark.parametrize("how", ["die", "hang", "engine"])
@pytest.mark.parametrize("max_age", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_an_actor_that_is_lost_at_any_moment_costs_no_session_and_no_ask(how, max_age, seed):
    rig = Rig(max_age=max_age, seed=seed, heartbeat_s=0.5, total=7, seats=2)
    draw = random.Random(seed)

    async def work(rig):
        async def strike():
            for _ in range(2):
                await asyncio.sleep(draw.random() * 0.15)
                worker = draw.choice([one for one in rig.workers if not one.dead])
                match how:
                    case "die":
                        worker.die()
                    case "hang":
                        worker.hung = True
                    case _:
                        worker.engine.fails_in = "generate"

        striking = asyncio.ensure_future(strike())
        batches = await rig.train(7, learn=lambda _: draw.random() * 0.03)
        await striking
        return batches

    batches = play(rig, work)
    check(batches, rig)
    assert max(age for one in ages(batches) for age in one) <= max_age
    assert rig.fleet.counts["replaced"] == len(rig.workers) - 2
    reasons = {"die": r"actor \d died", "hang": r"actor \d must report within 0\.5 s, it did not", "engine": "lost"}
    assert len(rig.said) == rig.fleet.counts["replaced"]
    assert all(re.fullmatch(rf"actor \d is replaced: .*{reasons[how]}", line) for line in rig.said)
    for worker in rig.workers[2:]:  # nothing is played before the live weights are loaded
        assert not worker.books.asks or worker.loaded


def test_an_actor_whose_orders_are_lost_is_replaced():
    rig = Rig(heartbeat_s=0.3)

    async def work(rig):
        rig.workers[0].loses = 2
        return await rig.train(4)

    check(play(rig, work), rig)
    [line] = rig.said
    assert re.search(r"actor 0 must carry out its orders within 0\.3 s, it has carried out 1 of \d+", line)


def test_what_an_actor_says_after_it_was_given_up_is_refused():
    rig = Rig(actors=2, total=4, seats=2)

    async def work(rig):
        await rig.fleet.load(version(0))
        rig.fleet.want()
        lanes = rig.fleet.lanes
        first = rig.workers[0]
        report = await first.player.report(1.0)  # on its way when its actor is given up
        while not report.played:
            report = await first.player.report(1.0)
        first.die()
        while not rig.fleet.counts["replaced"]:
            await asyncio.sleep(0.005)
        taken = [lanes.take(played) for played in report.played]
        return taken, await rig.fleet.collect()

    taken, batch = play(rig, work)
    assert taken
    assert not any(taken)
    assert stations(batch) == expected(0, total=4)
    assert set(Counter(charged(batch)).values()) == {1}


def test_an_actor_that_is_lost_while_the_engines_sleep_is_replaced_when_they_wake():
    rig = Rig()

    async def work(rig):
        await rig.fleet.load(version(0))
        batches = [await rig.fleet.collect()]
        await rig.fleet.sleep()
        first, second = rig.workers
        assert first.asleep
        assert second.asleep
        first.die()
        await asyncio.sleep(0.1)
        assert rig.fleet.counts["replaced"] == 1
        assert rig.workers == [first, second]  # others use its GPU
        await rig.fleet.wake()
        assert not second.asleep
        await rig.fleet.load(version(1))
        batches.append(await rig.fleet.collect())
        return batches

    check(play(rig, work), rig)
    assert len(rig.workers) == 3
    assert rig.workers[2].loaded[-1] == 1


@pytest.mark.parametrize("when", ["sleep", "wake"])
def test_an_engine_that_does_not_move_is_killed_before_others_use_its_gpu(when):
    rig = Rig()

    async def work(rig):
        await rig.fleet.load(version(0))
        batches = [await rig.fleet.collect()]
        first, second = rig.workers
        first.stays = when
        await rig.fleet.sleep()
        assert second.asleep
        assert first.asleep == (when == "wake")
        assert first.dead == (when == "sleep")
        await rig.fleet.wake()
        assert first.dead
        await rig.fleet.load(version(1))
        batches.append(await rig.fleet.collect())
        return batches

    check(play(rig, work), rig)
    assert len(rig.workers) == 3


def test_engines_sleep_only_once_a_lost_actor_is_replaced():
    rig = Rig()

    async def work(rig):
        await rig.fleet.load(version(0))
        batches = [await rig.fleet.collect()]
        rig.start_s = 0.1
        rig.workers[0].die()
        while not rig.fleet.counts["replaced"]:
            await asyncio.sleep(0.005)
        await rig.fleet.sleep()
        assert [worker.asleep for worker in rig.workers] == [False, True, True]
        await rig.fleet.wake()
        await rig.fleet.load(version(1))
        batches.append(await rig.fleet.collect())
        return batches

    check(play(rig, work), rig)


@pytest.mark.parametrize("when", ["before", "while"])
def test_lanes_are_opened_anew_although_an_actor_is_lost(when):
    rig = Rig(max_age=1)

    async def work(rig):
        await rig.train(2)
        first = rig.workers[0]
        if when == "before":
            first.die()
        else:
            first.reopen = lambda: first.die() or first.load(version(0))
        await rig.fleet.reopen(rig.lanes(), lockstep=False)
        rig.expert.asked.clear()
        return await rig.train(3)

    check(play(rig, work), rig)
    assert rig.fleet.counts["replaced"] == 1


def test_actors_that_die_again_and_again_end_the_run_with_the_commonest_reason():
    rig = Rig(actors=2)

    async def work(rig):
        async def strike():
            while True:
                await asyncio.sleep(0.01)
                for worker in rig.workers:
                    worker.engine.fails_in = "generate"

        striking = asyncio.ensure_future(strike())
        try:
            await rig.train(3)
        finally:
            striking.cancel()

    with pytest.raises(EngineError, match=r"lost 6 times while no batch was finished, \d of them by: .*actor \d: lost"):
        play(rig, work)


def test_a_session_that_fails_on_two_actors_is_at_fault_and_nobody_else_is():
    rig = Rig(actors=2, total=4, seats=1)
    rig.broken = {(f"recurring/train/0/{lane}", place): ValueError("bad row") for lane, place in ((0, 1), (3, 4))}
    batches = play(rig, lambda rig: rig.train(2))
    assert [stations(one) for one in batches] == [expected(number, total=4) for number in range(2)]
    failed = [one for batch in batches for one in batch if one.error is not None]
    assert [(one.stream, one.position, one.error) for one in failed] == [
        ("recurring/train/0/0", 1, "ValueError: bad row"),
        ("recurring/train/0/3", 4, "ValueError: bad row"),
    ]
    assert rig.fleet.counts["replaced"] == 0
    check(batches, rig)
    assert all(one.abandoned and not one.receipts for one in failed)  # paid once, by the first of two attempts


def test_lanes_move_to_the_actor_that_has_nothing_to_do():
    rig = Rig(actors=2, total=8, seats=2, sessions=4)

    async def work(rig):
        rig.workers[0].player._seats.number = 1
        for worker in rig.workers[1:]:
            worker.player._seats.number = 6
        await rig.train(2)
        return [len(worker.books.receipts) for worker in rig.workers]

    slow, fast = play(rig, work)
    assert fast > 2 * slow


def test_a_fresh_actor_takes_lanes_from_one_that_has_too_many():
    rig = Rig(actors=2, total=8, seats=2, sessions=4, slow_s=0.01)

    async def work(rig):
        await rig.fleet.load(version(0))
        rig.fleet.want()
        rig.workers[0].die()
        await rig.fleet.collect()
        return rig.workers[2]

    assert play(rig, work).books.receipts


@pytest.mark.parametrize("dies", [False, True])
def test_an_evaluation_drains_the_lanes_uses_all_actors_and_survives_a_death(dies):
    rig = Rig(actors=2, total=6, seats=3, max_age=1, sessions=4)
    parts = PlayedParts(None)
    chosen = plays(WORLD, split="test", sessions=3 * LENGTH)
    shares = balanced(chosen, shares=2)

    def left(index):
        return [one for one in shares[index] if one.index not in parts.streams]

    async def work(rig):
        await rig.fleet.load(version(0))
        first = await rig.fleet.collect()
        errand = Errand(plays=(), split="test", greedy=False, keeps=False, guide=None)
        before = sum(rig.expert.asked[key] for key in rig.expert.asked if "/train/" in key)

        async def strike():
            await asyncio.sleep(0.03)
            rig.workers[1].die()

        striking = asyncio.ensure_future(strike()) if dies else None
        await rig.fleet.drain()
        drained = sum(rig.expert.asked[key] for key in rig.expert.asked if "/train/" in key)
        await rig.fleet.evaluate(left, errand, take=parts.add)
        after = sum(rig.expert.asked[key] for key in rig.expert.asked if "/train/" in key)
        if striking is not None:
            await striking
        return first, (before, drained, after), await rig.fleet.collect()

    first, (before, drained, after), second = play(rig, work)
    assert before <= drained == after or dies
    assert stations(first) == expected(0, sessions=4)
    assert stations(second) == expected(1, sessions=4)
    played = [session for play_ in chosen for session in parts.streams[play_.index].sessions]
    assert stations(played) == [
        (f"recurring/test/0/{number // LENGTH}", number % LENGTH) for number in range(3 * LENGTH)
    ]


def test_lanes_in_lockstep_stay_with_their_actors_and_seats():
    rig = Rig(actors=2, total=6, seats=2, lockstep=True)
    batches = play(rig, lambda rig: rig.train(2))
    assert [stations(one) for one in batches] == [expected(0), expected(1)]
    for worker in rig.workers:
        lengths = [len(batch) for batch in worker.engine.batches]
        assert lengths == [2] * 3 + [1] * 3 + [2] * 3 + [1] * 3  # three lanes on two seats, three sessions each
