"""What an evaluation plays: the same sessions of the same streams for every policy that is compared."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from agile_ray.agent.environment import Environment
from agile_ray.agent.lane import LaneState
from agile_ray.errors import ConfigError
from agile_ray.types import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One stream of an evaluation, from its start with an empty memory."""

    index: int
    sessions: int
    begun: LaneState | None = None  # where an evaluation that was stopped goes on with the stream

    @property
    def left(self) -> int:
        """Sessions that are not played yet."""
        return self.sessions - (0 if self.begun is None else self.begun.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Sessions of one stream of an evaluation that follow one another."""

    index: int  # of the stream
    sessions: tuple[Session, ...]
    state: LaneState | None  # of the lane after them; None: nothing of the stream is left to play

    def then(self, later: "Part") -> "Part":
        """This part and the one after it, whose memory is what has changed since this one, as one."""
        state = later.state if self.state is None or later.state is None else self.state.then(later.state)
        return Part(index=self.index, sessions=(*self.sessions, *later.sessions), state=state)


def plays(environment: Environment, *, split: str, sessions: int | None) -> list[Play]:
    """Choose streams of a split, and how many sessions to play of each, from its start.

    In a split that ends, every stream is played up to the same length; shorter ones are played whole. If the number
    can't be divided so, the first streams get one session more. If the streams never end, the first ones are played
    whole, except for the last.

    Args:
        environment: provides the streams.
        split: the streams' split.
        sessions: total number; None plays every stream to its end. Fewer are played if the split has no more.

    Raises:
        ConfigError: there is no such split, or its streams never end and `sessions` is None.
    """
    available = environment.streams(split)
    if available is not None:
        lengths = [_length(environment, split=split, index=index) for index in range(available)]
        chosen = lengths if sessions is None else _level(lengths, total=sessions)
    elif sessions is not None:
        chosen = []
        while (left := sessions - sum(chosen)) > 0:
            chosen.append(min(left, _length(environment, split=split, index=len(chosen))))
    else:
        raise ConfigError(f"evaluate.sessions: the streams of split {split} never end; say how many sessions to play")
    return [Play(index=index, sessions=number) for index, number in enumerate(chosen) if number]


def balanced(chosen: Sequence[Play], *, shares: int) -> list[list[Play]]:
    """Divide streams so that the shares have about as many sessions left: the longest first, each to the least share.

    Streams of equal length are dealt in turn. The same streams are always divided in the same way.
    """
    found: list[list[Play]] = [[] for _ in range(shares)]
    loads = [(0, share) for share in range(shares)]
    for play in sorted(chosen, key=lambda play: -play.left):
        load, share = loads[0]
        found[share].append(play)
        heapq.heapreplace(loads, (load + play.left, share))
    return found


def _length(environment: Environment, *, split: str, index: int) -> int:
    return len(environment.stream(split=split, index=index).questions)


def _level(lengths: Sequence[int], *, total: int) -> list[int]:
    """Divide a total among streams equally, as far as their lengths allow."""
    found = [0] * len(lengths)
    left = total
    shortest_first = sorted(range(len(lengths)), key=lambda index: (lengths[index], -index))
    for done, index in enumerate(shortest_first):
        found[index] = min(lengths[index], left // (len(lengths) - done))
        left -= found[index]
    return found
