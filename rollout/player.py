"""Plays the lanes of one actor on one engine. The class does not need Ray; `rollout.actor` wraps it in a Ray actor.

Lanes keep their positions and memories between calls of `collect`. Lane n of the N lanes of all actors plays the
training streams n, n + N, n + 2N, ..., so two lanes never play the same stream. A training spreads the lanes over their
first streams (agile_ray/scripted/head_start.py) before it collects.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from agile_ray.agent.environment import Environment
from agile_ray.agent.lane import Lane, LaneState
from agile_ray.agent.policy import Policy
from agile_ray.agent.rules import Rules
from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import Play
from agile_ray.scripted.head_start import AskingShares, first_position, head_start
from agile_ray.types import Receipt, Session
from rollout.engine_policy import Engine, EnginePolicy, Lockstep, Seating


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePosition:
    """The position of one lane between two sessions, for a checkpoint."""

    number: int  # of the lane among the lanes of all actors, from 0
    round: int  # streams that the lane has finished
    state: LaneState  # within its current stream


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
        price: int,
        bought: Callable[[Receipt], None],
        looks_ahead: bool = False,
    ) -> None:
        """Open every lane at the start of its first stream.

        Args:
            numbers: of these lanes among the lanes of all actors.
            total: number of lanes of all actors.
            temperature: of sampling.
            seed: of sampling in lockstep, so that sessions repeat exactly; None: lanes do not wait for one another.
            price: of one ask, thousandths.
            bought: called with the receipt of every ask that training pays for.
            looks_ahead: sessions of `collect` count the similar questions that follow; credit reads that.
        """
        self.played = 0  # sessions that the current call has finished
        self._engine = engine
        self._environment = environment
        self._rules = rules
        self._total = total
        self._temperature = temperature
        self._seed = seed
        self._price = price
        self._bought = bought
        self._looks_ahead = looks_ahead
        self._rounds = dict.fromkeys(numbers, 0)
        self._lanes = {number: self._open(number) for number in numbers}

    def _open(self, number: int) -> Lane:
        index = number + self._rounds[number] * self._total
        stream = self._environment.stream(split="train", index=index)
        return Lane(stream, self._rules, price=self._price, bought=self._bought, looks_ahead=self._looks_ahead)

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
                self._environment, lane.stream, self._rules, position=place, shares=shares, seed=seed, price=self._price
            )
            lane.restore(state)
            await asyncio.sleep(0)  # scripts never wait, so nothing else could run in between

    async def collect(self, sessions: int) -> list[Session]:
        """Play this many sessions on every lane, all lanes at once.

        Returns:
            Lane by lane, each lane's sessions in stream order.

        Raises:
            EngineError, DeadlineError: the engine failed; the other lanes are stopped.
        """
        self.played = 0
        seating = self._seating(seats=len(self._lanes), greedy=False)

        async def play(seat: int, number: int) -> list[Session]:
            played = await self._play_on(number, sessions, seating.seat(seat))
            seating.leave(seat)
            return played

        return await _together([play(seat, number) for seat, number in enumerate(self._lanes)])

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
            played.append(await self._lanes[number].play(policy))
            self.played += 1
        return played

    async def evaluate(self, plays: Sequence[Play], *, split: str, greedy: bool) -> list[Session]:
        """Play streams from their start with empty memories, as many at once as there are lanes.

        Greedy evaluations play in lockstep, so that they repeat exactly. The lanes of `collect` are not touched.

        Returns:
            Stream by stream in the order of `plays`.

        Raises:
            EngineError, DeadlineError: the engine failed.
        """
        self.played = 0
        await self._engine.forget()
        seats = min(len(plays), len(self._lanes))
        shares = [range(seat, len(plays), seats) for seat in range(seats)]
        seating = self._seating(seats=seats, greedy=greedy)
        results: dict[int, list[Session]] = {}

        async def play(seat: int) -> list[Session]:
            for index in shares[seat]:
                results[index] = await self._play_stream(plays[index], split=split, policy=seating.seat(seat))
            seating.leave(seat)
            return []

        await _together([play(seat) for seat in range(seats)])
        return [session for index in range(len(plays)) for session in results[index]]

    async def _play_stream(self, play: Play, *, split: str, policy: Policy) -> list[Session]:
        lane = Lane(self._environment.stream(split=split, index=play.index), self._rules, price=self._price)
        sessions: list[Session] = []
        for _ in range(play.sessions):
            sessions.append(await lane.play(policy))
            self.played += 1
        return sessions

    def positions(self) -> list[LanePosition]:
        """The position of every lane; call it only between two calls of `collect`."""
        return [
            LanePosition(number=number, round=self._rounds[number], state=lane.state())
            for number, lane in self._lanes.items()
        ]

    def restore(self, positions: Sequence[LanePosition]) -> None:
        """Put lanes back to these positions. A lane that stays in its stream keeps its receipts.

        Raises:
            ConfigError: the streams of this run are not those of the checkpoint.
        """
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
