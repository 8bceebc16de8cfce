"""Plays the lanes of one actor on one engine. The class does not need Ray; `rollout.actor` wraps it in a Ray actor.

Lanes keep their positions and memories between calls of `collect`. Lane n of the N lanes of all actors plays the
training streams n, n + N, n + 2N, ..., so two lanes never play the same stream. A training spreads the lanes over their
first streams (agile_ray/scripted/head_start.py) before it collects.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agile_ray.agent.environment import Environment
from agile_ray.agent.lane import Lane, LaneState
from agile_ray.agent.memory import Moment
from agile_ray.agent.policy import Policy, Writer
from agile_ray.agent.rules import Rules
from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import Part, Play, balanced
from agile_ray.scripted.guided import Guide, grow
from agile_ray.scripted.head_start import AskingShares, first_position, head_start
from agile_ray.types import Receipt, Session
from rollout.engine_policy import Engine, EnginePolicy, Lockstep, Seating
from rollout.timed_session import play_session

PART_S = 300.0
"""Time between two parts of a stream that is kept while it is played, seconds: what a stop loses of each stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePosition:
    """The position of one lane between two sessions, for a checkpoint."""

    number: int  # of the lane among the lanes of all actors, from 0
    round: int  # streams that the lane has finished
    state: LaneState  # within its current stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How far the current call of a player is."""

    played: int  # sessions that it has finished
    steps: int  # grows whenever a policy is asked for a turn, or has written one
    parts: list[Part]  # of an evaluation: those that were not reported before


class Player:
    """The lanes that one engine plays."""

    def __init__(
        self,
        *,
        engine: Engine,
        environment: Environment,
        rules: Rules,
        numbers: range,
        total: int,
        temperature: float,
        seed: int | None,
        bought: Callable[[Receipt], None],
        deadline_s: float,
    ) -> None:
        """Open every lane at the start of its first stream.

        Args:
            numbers: of these lanes among the lanes of all actors.
            total: number of lanes of all actors.
            temperature: of sampling.
            seed: of sampling in lockstep, so that sessions repeat exactly; None: lanes do not wait for one another.
            bought: called with the receipt of every ask that training pays for.
            deadline_s: longest wait for one step of a session, seconds.
        """
        self._played = 0
        self._steps = 0
        self._call = -1  # number of the latest evaluation
        self._parts: dict[int, Part] = {}  # of the latest evaluation, by number
        self._engine = engine
        self._environment = environment
        self._rules = rules
        self._total = total
        self._temperature = temperature
        self._seed = seed
        self._bought = bought
        self._deadline_s = deadline_s
        self._rounds = dict.fromkeys(numbers, 0)
        self._lanes = {number: self._open(number) for number in numbers}

    def _open(self, number: int) -> Lane:
        index = number + self._rounds[number] * self._total
        stream = self._environment.stream(split="train", index=index)
        # Both also without credit: a replay of the stored sessions may compute another one.
        return Lane(stream, self._rules, bought=self._bought, looks_ahead=True, imagines=True)

    async def spread(self, shares: AskingShares, *, sessions: int, seed: int) -> None:
        """Move every lane to the place where it begins in its first stream; call it before any session is collected.

        Args:
            shares: of the sessions that asked, by which memories are grown.
            sessions: of each lane in one collection.
            seed: root seed of the run.
        """
        for number, lane in self._lanes.items():
            place = first_position(lane.stream, number=number, lanes=self._total, sessions=sessions)
            state = await head_start(
                self._environment, lane.stream, self._rules, position=place, shares=shares, seed=seed
            )
            lane.restore(state)
            await asyncio.sleep(0)  # scripts never wait, so nothing else could run in between

    async def collect(self, sessions: int) -> list[Session]:
        """Play this many sessions on every lane, all lanes at once.

        Returns:
            Lane by lane, each lane's sessions in stream order.

        Raises:
            EngineError: the engine failed; the other lanes are stopped.
            DeadlineError: the engine is late, or a step of a session is; likewise.
        """
        self._played = 0
        seating = self._seating(seats=len(self._lanes), greedy=False)

        async def play(seat: int, number: int) -> list[Session]:
            played = await self._play_on(number, sessions, seating.seat(seat))
            seating.leave(seat)
            return played

        return await _together([play(seat, number) for seat, number in enumerate(self._lanes)])

    def report(self, call: int, seen: int) -> Report:
        """How far the current call is.

        Args:
            call: number of the evaluation whose parts are wanted; there are none if another one is the latest.
            seen: number of its parts that the caller has got; they are forgotten.
        """
        parts: list[Part] = []
        if call == self._call:
            for number in [number for number in self._parts if number < seen]:
                del self._parts[number]
            parts = list(self._parts.values())
        return Report(played=self._played, steps=self._steps, parts=parts)

    def _step(self) -> None:
        self._steps += 1

    async def _play(self, lane: Lane, policy: Policy) -> Session:
        session = await play_session(lane, policy, deadline_s=self._deadline_s, stepped=self._step)
        self._played += 1
        return session

    def _seating(self, *, seats: int, greedy: bool) -> Seating:
        temperature = 0.0 if greedy else self._temperature
        if greedy or self._seed is not None:
            return Lockstep(self._engine, seats=seats, temperature=temperature, seed=self._seed or 0)
        return EnginePolicy(self._engine, temperature=temperature)

    async def _play_on(self, number: int, sessions: int, policy: Policy) -> list[Session]:
        played: list[Session] = []
        for _ in range(sessions):
            if self._lanes[number].finished:
                self._rounds[number] += 1
                self._lanes[number] = self._open(number)
            played.append(await self._play(self._lanes[number], policy))
        return played

    async def evaluate(
        self, plays: Sequence[Play], *, split: str, greedy: bool, keeps: bool, call: int, guide: Guide | None = None
    ) -> None:
        """Play streams with empty memories, as many at once as there are lanes, and report them in parts.

        Greedy evaluations play in lockstep, so that they repeat exactly. The lanes of `collect` are not touched.

        Args:
            plays: the streams.
            split: of the streams.
            greedy: whether the most probable token is taken, instead of a sampled one.
            keeps: report a part of each stream about every `PART_S` seconds, not only what is left at its end.
            call: number of the evaluation, for `report`; no two evaluations have the same.
            guide: script that decides when to ask; None: the engine decides.

        Raises:
            EngineError: the engine failed.
            DeadlineError: the engine is late, or a step of a session is.
        """
        parts: dict[int, Part] = {}
        self._played, self._call, self._parts = 0, call, parts
        await self._engine.forget()
        shares = balanced(plays, shares=min(len(plays), len(self._lanes)))
        seating = self._seating(seats=len(shares), greedy=greedy)
        numbers = itertools.count()

        async def play(seat: int) -> list[Session]:
            for one in shares[seat]:
                async for part in self._play_stream(
                    one, split=split, policy=seating.seat(seat), keeps=keeps, guide=guide
                ):
                    parts[next(numbers)] = part
            seating.leave(seat)
            return []

        await _together([play(seat) for seat in range(len(shares))])

    async def _play_stream(
        self, play: Play, *, split: str, policy: Writer, keeps: bool, guide: Guide | None
    ) -> AsyncIterator[Part]:
        lane = Lane(self._environment.stream(split=split, index=play.index), self._rules)
        if play.begun is not None:
            lane.restore(play.begun)
        measured, plays = lane, policy
        if guide is not None:
            measured, plays = guide.measured(lane, self._rules), guide.policy(self._environment, policy)
        sessions: list[Session] = []
        last, moment = time.monotonic(), lane.memory.moment
        while lane.position < play.sessions:
            measured.memory, measured.position = lane.memory, lane.position
            sessions.append(await self._play(measured, plays))
            await grow(lane, measured, self._environment)
            ends = lane.position == play.sessions
            if ends or (keeps and time.monotonic() - last > PART_S):
                yield Part(index=play.index, sessions=tuple(sessions), state=None if ends else lane.state(moment))
                sessions, last, moment = [], time.monotonic(), lane.memory.moment

    def positions(self, since: Mapping[int, Moment] | None = None) -> Iterator[LanePosition]:
        """The position of every lane; call it only between two calls of `collect`.

        Args:
            since: moments of the lanes' memories, by the lane's number; what changed before is left out.
        """
        for number, lane in self._lanes.items():
            state = lane.state(since.get(number) if since is not None else None)
            yield LanePosition(number=number, round=self._rounds[number], state=state)

    def moments(self) -> dict[int, Moment]:
        """Now, in the memory of every lane; for a later call of `positions`."""
        return {number: lane.memory.moment for number, lane in self._lanes.items()}

    def restore(self, positions: Sequence[LanePosition]) -> None:
        """Put all lanes back to these positions, with whole memories. One that stays in its stream keeps its receipts.

        Raises:
            ConfigError: these are not the lanes of this player, or its streams are not those of the checkpoint.
        """
        if [position.number for position in positions] != list(self._lanes):
            raise ConfigError(
                f"resume: the checkpoint has {len(positions)} lanes for an actor that plays {len(self._lanes)}; "
                "set rollout.actors and rollout.lanes as they were"
            )
        for position in positions:
            number, lane = position.number, self._lanes[position.number]
            if self._rounds[number] != position.round:
                self._rounds[number] = position.round
                lane = self._open(number)
            if lane.stream.id != position.state.stream:
                raise ConfigError(
                    f"resume: lane {number} played stream {position.state.stream} in the checkpoint, but plays "
                    f"{lane.stream.id} in this run"
                )
            lane.restore(position.state)
            self._lanes[number] = lane


async def _together(work: Sequence[Coroutine[None, None, list[Session]]]) -> list[Session]:
    """Run coroutines concurrently and join their results in order; the first error cancels the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return [session for sessions in await asyncio.gather(*tasks) for session in sessions]
    finally:
        for task in tasks:
            task.cancel()
