"""Pacing and ownership of lanes: whatever order things happen in, nothing is too old, dropped, or there twice."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agile_ray.agent.lane import LaneState
from agile_ray.agent.memory import QA, Change, Entry
from agile_ray.errors import ConfigError
from rollout.fleet.lanes import Lanes
from rollout.fleet.messages import LanePosition, Lease, Played, Returned
from tests.fakes.stored import ONE

ACTORS = 3


def change(writer, *, whole=False):
    """One entry, written by the session at a position."""
    entry = Entry(kind=QA, scope="", key=str(writer), text=str(writer), writer=writer)
    return Change(whole=whole, forgotten=(), entries=(entry,), vectors=np.full((1, 2), writer, np.float32))


def position(number, place, memory):
    return LanePosition(number=number, round=0, state=LaneState(stream=f"s{number}", position=place, memory=memory))


@dataclass
class Holder:
    """An actor's copy of a lane."""

    lease: Lease
    place: int  # next session

    def play(self):
        """The next session, which writes one entry."""
        session = replace(ONE, stream=f"s{self.lease.number}", position=self.place)
        memory = change(self.place, whole=self.place == 0)
        self.place += 1
        after = position(self.lease.number, self.place, memory)
        return Played(number=self.lease.number, epoch=self.lease.epoch, session=session, position=after)


def remembered(lease):
    """Writers of the entries that come with a lease."""
    return [] if lease.position is None else [entry.writer for entry in lease.position.state.memory.entries]


class Play:
    """Lanes, and actors that play them in any order."""

    def __init__(self, *, total, sessions, max_age, batches=1000):
        self.lanes = Lanes(total=total, sessions=sessions, max_age=max_age, batches=batches, actors=ACTORS)
        self.sessions, self.max_age = sessions, max_age
        self.held, self.old = {}, []  # by lane; what was lost but may still speak
        self.live, self.learned = 0, 0
        self.begun = []  # (slice, live version) of every session that began a slice
        self.batches = []
        self.lanes.open(0)
        self.lanes.want()

    def deal(self, actor):
        for lane in self.lanes.unowned():
            lease = self.lanes.lease(lane.number, actor)
            place = 0 if lease.position is None else lease.position.state.position
            assert remembered(lease) == list(range(place))  # the whole memory travels, whoever played before
            assert place == lease.played
            self.held[lane.number] = Holder(lease, place)

    def play(self, number):
        holder = self.held.get(number)
        if holder is None or holder.place >= self.lanes.allowed:
            return
        if holder.place % self.sessions == 0:
            self.begun.append((holder.place // self.sessions, self.live))
        assert self.lanes.take(holder.play())

    def lose(self, actor):
        before = {lane.number for lane in self.lanes.unowned()}
        self.lanes.lose(actor)
        for lane in self.lanes.unowned():
            if lane.number not in before:
                self.old.append(self.held.pop(lane.number))

    def recall(self, number):
        holder = self.held.pop(number, None)
        if holder is not None:
            self.lanes.take_back(Returned(number=number, epoch=holder.lease.epoch))
            self.old.append(holder)

    def speak(self):
        for holder in self.old:
            assert not self.lanes.take(holder.play())
            holder.place -= 1

    def learn(self):
        if self.lanes.is_complete:
            self.batches.append(self.lanes.collect())
            self.live += 1
            self.lanes.serve(self.live)
            self.lanes.want()


EVENTS = st.one_of(
    st.tuples(st.just("play"), st.integers(0, 6)),
    st.tuples(st.just("play"), st.integers(0, 6)),
    st.tuples(st.just("play"), st.integers(0, 6)),
    st.tuples(st.just("lose"), st.integers(0, ACTORS - 1)),
    st.tuples(st.just("recall"), st.integers(0, 6)),
    st.tuples(st.just("deal"), st.integers(0, ACTORS - 1)),
    st.tuples(st.just("speak"), st.just(0)),
    st.tuples(st.just("learn"), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(
    events=st.lists(EVENTS, max_size=120),
    total=st.integers(1, 7),
    sessions=st.integers(1, 4),
    max_age=st.integers(0, 3),
    every=st.integers(1, 9),
)
def test_batches_are_whole_in_order_and_young_whatever_happens(events, total, sessions, max_age, every):
    play = Play(total=total, sessions=sessions, max_age=max_age)
    for event, number in [("deal", 0), *events]:
        match event:
            case "play":
                play.play(number % total)
            case "speak":
                play.speak()
            case "learn":
                play.learn()
            case _:
                getattr(play, event)(number)
    play.deal(1)
    while len(play.batches) < len(events) // every + 1:  # nothing is ever stuck
        for number in range(total):
            play.play(number)
        play.learn()
    for batch, found in enumerate(play.batches):
        assert [(one.stream, one.position) for one in found] == [
            (f"s{lane}", place) for lane in range(total) for place in range(batch * sessions, (batch + 1) * sessions)
        ]
    assert all(part - live <= max_age for part, live in play.begun)  # batch k is learned at version k


@pytest.mark.parametrize("max_age", [0, 1, 3])
def test_the_fastest_lane_is_ahead_by_at_most_the_age(max_age):
    play = Play(total=2, sessions=5, max_age=max_age)
    play.deal(0)
    for _ in range(100):
        play.play(0)
    assert play.held[0].place == 5 * (max_age + 1)
    assert not play.lanes.is_complete  # a batch waits for its slowest lane, and loses nothing of the fastest
    for _ in range(5):
        play.play(1)
    play.learn()
    for _ in range(100):
        play.play(0)
    assert play.held[0].place == 5 * (max_age + 2)


def test_the_last_slice_is_that_of_the_last_batch():
    play = Play(total=1, sessions=3, max_age=2, batches=2)
    play.deal(0)
    for _ in range(20):
        play.play(0)
    assert play.held[0].place == 6


def test_a_session_that_failed_twice_comes_back_as_a_fault():
    lanes = Lanes(total=1, sessions=2, max_age=0, batches=9, actors=2)
    lanes.open(0)
    for number in range(2):
        lease = lanes.lease(0, number)
        assert lease.fault is None
        lanes.take_back(Returned(number=0, epoch=lease.epoch, fault="KeyError: x"))
        assert lanes.unowned()[0].faulty
    assert lanes.lease(0, 1).fault == "KeyError: x"


def test_a_checkpoint_of_other_lanes_is_refused():
    lanes = Lanes(total=3, sessions=2, max_age=0, batches=9, actors=1)
    with pytest.raises(ConfigError, match=r"checkpoint has 1 lanes, loop\.lanes is 3; set it as it was"):
        lanes.restore({0: position(0, 0, change(0, whole=True))})


def test_many_lanes_cost_no_more_each_than_few():
    def seconds(total):
        import time

        play = Play(total=total, sessions=1, max_age=1)
        begin = time.perf_counter()
        play.deal(0)
        for _ in range(3):
            for number in range(total):
                play.play(number)
            play.learn()
        return (time.perf_counter() - begin) / total

    seconds(100)
    few, many = min(seconds(100) for _ in range(3)), seconds(10_000)
    assert many < 4 * few
