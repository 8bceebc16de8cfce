"""The lanes of a run, as the driver owns them: where each one is, who plays it, and what may begin.

A *slice* is what a lane plays for one iteration: `loop.sessions_per_lane` sessions. Batch k is slice k of every lane,
and is learned at version k. A lane begins slice k once version k - `loop.max_age` is live. Versions only grow, so no
token is older than `loop.max_age` versions when it is learned from. Nothing that was played is dropped for its age, so
a lane's speed can't bias what a batch holds.

    max_age 1, three lanes        version 0 live    1                2
    lane 0                        0 0 0 0 1 1 1 1   . . 2 2 2 2      waits at the first dot: slice 2 needs version 1
    lane 1                        0 0 0 0 0 0 0 0   1 1 1 1 2 2
    batch                                       0         1

A lane's state travels after every session: the driver can give the lane to another actor at any session boundary, and
writes a checkpoint of the lanes at the start of slice k while they play slice k + 1.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agile_ray.errors import ConfigError
from agile_ray.types import Receipt, Session
from rollout.fleet.messages import LanePosition, Lease, Played, Returned, joined

FAULTS = 2
"""Attempts at a session, on different actors if there are several, after which the session itself is at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unowned:
    """A lane that nobody plays."""

    number: int
    home: int  # the actor that played it last
    faulty: bool  # an attempt at its next session failed there


class _Lane:
    """One lane."""

    __slots__ = (
        "bought",
        "epoch",
        "fault",
        "faults",
        "home",
        "later",
        "number",
        "owner",
        "played",
        "saved",
        "sessions",
        "since",
    )

    def __init__(self, number: int, *, home: int) -> None:
        self.number = number
        self.home = home  # the actor that plays it, or did so last
        self.owner: int | None = None  # the actor that plays it
        self.epoch = 0
        self.played = 0  # sessions, since version 0
        self.faults = 0  # failed attempts at its next session
        self.fault: str | None = None  # of the last one
        self.bought: tuple[Receipt, ...] = ()  # by them
        self.sessions: list[Session] = []  # that are in no batch yet
        self.saved: LanePosition | None = None  # whole, at the latest checkpoint
        self.since: LanePosition | None = None  # at the end of the latest batch: what has changed since `saved`
        self.later: list[LanePosition] = []  # after each session that is in no batch yet: what it has changed

    def whole(self) -> LanePosition | None:
        """Its position, with the whole memory."""
        return joined(one for one in (self.saved, self.since, *self.later) if one is not None)


class Lanes:
    """All lanes of a run. Positions, batches and leases; no actors, no waiting."""

    def __init__(
        self,
        *,
        total: int,
        sessions: int,
        max_age: int,
        batches: int,
        actors: int,
    ) -> None:
        """Open the lanes at the start of their first streams.

        Args:
            total: number of lanes.
            sessions: of each slice.
            max_age: in versions, of a token when it is learned from.
            batches: of the whole run; no slice begins that would belong to a later one.
            actors: that the lanes begin at, in blocks of neighbours.
        """
        self.sessions = sessions
        self._max_age = max_age
        self._batches = batches
        self._lanes = [_Lane(number, home=number * actors // total) for number in range(total)]
        self._free = {lane.number for lane in self._lanes}  # those that nobody plays
        self._batch: int | None = None  # that is collected next; None: nothing was collected yet
        self._done = 0  # lanes that have played their slice of it
        self._live = 0
        self._wanted = False  # the next batch was asked for

    def __len__(self) -> int:
        return len(self._lanes)

    # Pacing.

    @property
    def is_open(self) -> bool:
        """Whether lanes may play: a version is live, and the first batch was asked for."""
        return self._batch is not None

    def open(self, version: int) -> None:
        """Let the lanes play; the first batch is learned at this version, which is live."""
        self._batch = self._live = version
        for lane in self._lanes:
            lane.played = version * self.sessions

    def serve(self, version: int) -> None:
        """A version is live on every engine that plays."""
        self._live = max(self._live, version)

    @property
    def allowed(self) -> int:
        """A lane may begin a session as long as it has played fewer than this."""
        if self._batch is None:
            return 0
        if self._max_age == 0:  # playing and learning take turns, so nothing is played while a run validates
            return self.sessions * (self._batch + self._wanted)
        return self.sessions * min(self._live + self._max_age + 1, max(self._batches, self._batch + self._wanted))

    def want(self) -> None:
        """The next batch is asked for."""
        self._wanted = True

    @property
    def is_complete(self) -> bool:
        """Whether every lane has played its slice of the batch that is collected next."""
        return self._done == len(self._lanes)

    @property
    def progress(self) -> int:
        """Sessions of the batch that is collected next which are played."""
        return sum(min(len(lane.sessions), self.sessions) for lane in self._lanes)

    def collect(self) -> list[Session]:
        """The sessions of a complete batch, lane by lane in stream order; the next one is collected from now on."""
        assert self._batch is not None
        assert self.is_complete
        found: list[Session] = []
        for lane in self._lanes:
            found += lane.sessions[: self.sessions]
            del lane.sessions[: self.sessions]
            lane.since = joined(one for one in (lane.since, *lane.later[: self.sessions]) if one is not None)
            del lane.later[: self.sessions]
        self._batch += 1
        self._wanted = False
        self._done = sum(self._has_batch(lane) for lane in self._lanes)
        return found

    def _has_batch(self, lane: _Lane) -> bool:
        assert self._batch is not None
        return lane.played >= (self._batch + 1) * self.sessions

    # Who plays what.

    def unowned(self) -> list[Unowned]:
        """The lanes that nobody plays, those that are behind first."""
        lanes = sorted((self._lanes[number] for number in self._free), key=lambda lane: (lane.played, lane.number))
        return [Unowned(number=lane.number, home=lane.home, faulty=lane.fault is not None) for lane in lanes]

    def lease(self, number: int, actor: int) -> Lease:
        """Give a lane that nobody plays to an actor."""
        lane = self._lanes[number]
        self._free.remove(number)
        lane.owner = lane.home = actor
        lane.epoch += 1
        return Lease(
            number=number,
            epoch=lane.epoch,
            played=lane.played,
            position=lane.whole(),
            bought=lane.bought,
            fault=lane.fault if lane.faults >= FAULTS else None,
        )

    def take(self, played: Played) -> bool:
        """Take a session over; False, and nothing happens, if it comes with an older epoch."""
        lane = self._lanes[played.number]
        if lane.owner is None or lane.epoch != played.epoch:
            return False
        lane.sessions.append(played.session)
        lane.later.append(played.position)
        lane.faults, lane.fault, lane.bought = 0, None, ()
        before = self._has_batch(lane)
        lane.played += 1
        self._done += self._has_batch(lane) and not before
        return True

    def take_back(self, returned: Returned) -> None:
        """Take a lane back; of an older epoch, nothing happens."""
        lane = self._lanes[returned.number]
        if lane.owner is None or lane.epoch != returned.epoch:
            return
        if returned.fault is not None:
            lane.faults, lane.fault, lane.bought = lane.faults + 1, returned.fault, returned.bought
        self._release(lane)

    def move(self, number: int, actor: int) -> None:
        """Let an actor be the home of a lane that nobody plays."""
        if self._lanes[number].owner is None:
            self._lanes[number].home = actor

    def homes(self, actor: int) -> list[int]:
        """The lanes whose home is this actor."""
        return [lane.number for lane in self._lanes if lane.home == actor]

    def lose(self, actor: int) -> int:
        """Take all lanes of an actor back; they go on from their last session boundary. Returns their number."""
        lost = [lane for lane in self._lanes if lane.owner == actor]
        for lane in lost:
            self._release(lane)
        return len(lost)

    def _release(self, lane: _Lane) -> None:
        lane.owner = None
        lane.epoch += 1  # so that whatever is on its way is refused
        self._free.add(lane.number)

    # Positions.

    def place(self, positions: Iterable[LanePosition]) -> None:
        """Put lanes to positions with whole memories, before they have played anything."""
        for position in positions:
            self._lanes[position.number].saved = position

    def restore(self, positions: Mapping[int, LanePosition]) -> None:
        """Put all lanes back to these positions, by their numbers. Whoever plays one loses it.

        Raises:
            ConfigError: these are positions of other lanes.
        """
        if positions.keys() != set(range(len(self._lanes))):
            raise ConfigError(
                f"resume: the checkpoint has {len(positions)} lanes, loop.lanes is {len(self._lanes)}; set it as it was"
            )
        for lane in self._lanes:
            if lane.owner is not None:
                self._release(lane)
            lane.played, lane.faults, lane.fault, lane.bought = 0, 0, None, ()
            lane.sessions, lane.later, lane.since = [], [], None
            lane.saved = positions[lane.number]
        self._batch, self._done, self._live, self._wanted = None, 0, 0, False

    def changes(self, *, whole: bool) -> Iterator[LanePosition]:
        """The position of every lane at the end of the latest batch.

        Args:
            whole: with whole memories, not only what has changed since `keep` was called last.
        """
        for lane in self._lanes:
            parts = (lane.saved, lane.since) if whole else (lane.since,)
            found = joined(one for one in parts if one is not None)
            if found is not None:
                yield found

    def keep(self) -> None:
        """A checkpoint holds what `changes` yields."""
        for lane in self._lanes:
            lane.saved = joined(one for one in (lane.saved, lane.since) if one is not None)
            lane.since = None
