"""A rank that is stuck is named with the unit that it does not finish; one that has much to do never is late."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import ray
from ray.exceptions import ActorDiedError, NodeDiedError, RayTaskError

from agile_ray.errors import AgileError, ConfigError, DeadlineError, LearnerError, RankLostError
from learner import rank_actors
from learner.rank_actors import RankActors

LIMIT_S = 0.6


class Clock:
    """Stands for time, which passes only in a wait."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


clock = Clock()


@dataclass(eq=False)
class Stream:
    """What a rank yields: each item after some seconds, then nothing, or no end at all."""

    items: list[object]
    every_s: float = 0.0
    ends: bool = True
    taken: int = 0
    ready_at: float = 0.0

    def __post_init__(self) -> None:
        self.ready_at = clock.now + self.every_s

    @property
    def ready(self) -> bool:
        return clock.now >= self.ready_at and (self.ends or self.taken < len(self.items))

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        if self.taken == len(self.items):
            raise StopIteration
        self.taken += 1
        self.ready_at = clock.now + (self.every_s if self.taken < len(self.items) else 0)
        return self.items[self.taken - 1]


@pytest.fixture(autouse=True)
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for Ray: references are the values themselves."""

    def wait(
        waiting: list[Stream], *, num_returns: int, timeout: float, fetch_local: bool
    ) -> tuple[list[Stream], list[Stream]]:
        assert (num_returns, fetch_local) == (1, False)
        end = clock.now + timeout
        while not (ready := [stream for stream in waiting if stream.ready]) and clock.now < end:
            clock.now += 0.01
        return ready[:1], [stream for stream in waiting if stream not in ready[:1]]

    def get(answers: list[object], *, timeout: float) -> list[object]:
        assert timeout == LIMIT_S
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(rank_actors, "POLL_S", 0.05)
    monkeypatch.setattr(rank_actors, "time", clock)


def follow(*streams: Stream) -> list[tuple[list[object], object]]:
    ranks = RankActors.__new__(RankActors)
    ranks._deadline_s = LIMIT_S
    found = ranks.follow("learn", streams, unit="micro-batch")  # pyright: ignore[reportArgumentType]
    return [([*one.units], one.result) for one in found]


def test_units_and_results_come_rank_by_rank_whoever_is_first() -> None:
    slow = Stream(["a", "b", "sums 0"], every_s=0.1)
    assert follow(slow, Stream(["u", "sums 1"])) == [(["a", "b"], "sums 0"), (["u"], "sums 1")]


def test_a_call_may_take_longer_than_the_deadline_while_units_are_finished() -> None:
    begin = clock.now
    follow(*(Stream(["u"] * 8 + ["sums"], every_s=LIMIT_S / 4) for _ in range(2)))
    assert clock.now - begin > 1.5 * LIMIT_S


def test_a_rank_that_finishes_no_more_units_is_named_with_the_last_one() -> None:
    with pytest.raises(DeadlineError) as caught:
        follow(Stream(["u", "sums"], every_s=0.05), Stream(["u"] * 3, ends=False))
    assert str(caught.value) == (
        "learner.learn: every rank must finish a micro-batch within cluster.deadline_s (0.6 s), these did not finish "
        "the next one: rank 1 (after 3)"
    )


def test_a_rank_that_never_begins_is_named() -> None:
    with pytest.raises(DeadlineError, match=r"rank 0 \(after 0\)$"):
        follow(Stream([], ends=False), Stream(["sums"]))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RayTaskError("f", "Traceback", LearnerError("rank 1: the loss is nan")), "^rank 1: the loss is nan$"),
        (ActorDiedError(), r"^learner\.learn: a rank's process died"),
    ],
)
def test_an_error_ends_the_call_although_the_other_ranks_wait_for_the_one_that_failed(
    error: Exception, message: str
) -> None:
    begin = clock.now
    with pytest.raises(LearnerError, match=message):
        follow(Stream(["u"], ends=False), Stream(["u", error]))
    assert clock.now - begin < LIMIT_S


def test_a_rank_that_is_stuck_is_lost() -> None:
    with pytest.raises(RankLostError):
        follow(Stream([], ends=False))


CLOSED = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.7]:3207"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ActorDiedError(), True),
        (NodeDiedError("the node is gone"), True),
        (RayTaskError("f", "Traceback", RuntimeError(CLOSED)), True),
        (RayTaskError("f", "Traceback", RuntimeError("NCCL error: remote process exited or network error")), True),
        (RayTaskError("f", "Traceback", ConnectionResetError(104, "Connection reset by peer")), True),
        (RayTaskError("f", "Traceback", LearnerError("every loss must be finite, found nan")), False),
        (RayTaskError("f", "Traceback", ConfigError("model.path: no folder")), False),
        (RayTaskError("f", "Traceback", RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")), False),
        (RayTaskError("f", "Traceback", RuntimeError("DefaultCPUAllocator: can't allocate memory")), False),
        (RayTaskError("f", "Traceback", OSError(errno.ENOSPC, "No space left on device")), False),
        (RayTaskError("f", "Traceback", ValueError("shapes (3,) and (4,)")), False),
    ],
    ids=str,
)
def test_only_a_loss_that_fresh_ranks_may_mend_is_one(error: Exception, lost: bool) -> None:
    with pytest.raises(AgileError) as caught:
        follow(Stream(["u", error]), Stream(["u"], ends=False))
    assert isinstance(caught.value, RankLostError) == lost
