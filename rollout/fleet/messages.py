"""What the driver and a rollout actor tell each other about lanes.

    Orders    driver to actor: how far lanes may play, lanes to take over, lanes to hand back
    Report    actor to driver: the sessions that were played, each with what it changed in its lane

The driver owns the lanes. An actor that dies takes nothing with it but the sessions that it was playing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from agile_ray.agent.lane import LaneState
from agile_ray.errors import AgileError
from agile_ray.evaluation.plays import Part, Play
from agile_ray.scripted.guided import Guide
from agile_ray.types import Receipt, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePosition:
    """The position of one lane between two sessions."""

    number: int  # of the lane, from 0
    round: int  # streams that the lane has finished
    state: LaneState  # within its current stream

    def then(self, later: "LanePosition") -> "LanePosition":
        """A later position of the same lane, whose memory is what has changed since this one."""
        return replace(later, state=self.state.then(later.state))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lane that an actor plays until it hands the lane back."""

    number: int
    epoch: int  # grows with every lease of this lane; what comes with an older one is refused
    played: int  # sessions of the lane so far, in all iterations
    position: LanePosition | None  # with the whole memory; None: the start of the lane's first stream
    bought: tuple[Receipt, ...] = ()  # by failed attempts at the next session
    fault: str | None = None  # why the next session can't be played; it counts as failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What an actor plays of an evaluation: streams with empty memories."""

    plays: Sequence[Play]
    split: str
    greedy: bool  # the most probable token is taken, lanes play in lockstep
    keeps: bool  # a part of each stream is reported now and then, not only what is left at its end
    guide: Guide | None  # script that decides when to ask; None: the engine decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What changes for an actor; orders are carried out in the order of their numbers (rollout/fleet/in_order.py)."""

    number: int  # of these orders, from 1, counted for each process
    allowed: int  # a lane may play a session as long as it has played fewer than this
    paused: bool  # no session begins; those that are being played end
    leases: tuple[Lease, ...] = ()
    recalls: int = 0  # lanes that wait for a seat, to be handed back; fewer if there are not as many
    bought: tuple[Receipt, ...] = ()  # paid by attempts at sessions that are played again
    errand: Errand | None = None  # to begin now, while no lane is being played


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One session of a lane, and what it changed."""

    number: int  # of the lane
    epoch: int  # of its lease
    session: Session
    position: LanePosition  # after it; the memory is what has changed since before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A lane that is handed back between two sessions."""

    number: int
    epoch: int
    fault: str | None = None  # what ended an attempt at its next session; None: it was recalled
    bought: tuple[Receipt, ...] = ()  # by that attempt and earlier ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened at an actor since its last report."""

    orders: int  # number of the last orders that were carried out
    playing: int  # sessions of lanes that have a seat; parked ones have none
    waiting: int  # lanes that wait for a seat
    free: int  # seats
    asking: int = 0  # sessions that wait for a slow expert
    parks: int = 0  # sessions that gave up their seats for that
    played: Sequence[Played] = ()  # those of one lane in order, and before the lane's `Returned`
    returned: Sequence[Returned] = ()
    parts: Sequence[Part] = ()  # of the running evaluation
    evaluated: int = 0  # sessions that the running evaluation has finished
    evaluating: bool = False
    failure: str | None = None  # why the engine is lost
    fatal: AgileError | OSError | None = None  # why the run can't go on


def joined(positions: Iterator[LanePosition]) -> LanePosition | None:
    """The last of several positions of one lane, with what has changed since before the first; None of none."""
    found = next(positions, None)
    for later in positions:
        assert found is not None
        found = found.then(later)
    return found
