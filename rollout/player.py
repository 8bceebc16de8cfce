"""Plays the lanes of one actor with one engine. A plain class: the actor around it only adds Ray.

Lanes outlive the calls of `collect`, memories included. Lane n of N (counted over all actors) plays the training
streams n, n + N, n + 2N, ..., so that no two lanes ever play the same one.
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
from agile_ray.types import Receipt, Session
from rollout.engine import VLLMEngine
from rollout.engine_policy import EnginePolicy, Lockstep


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one lane of the run stands, for a checkpoint."""

    number: int  # of the lane, over all actors
    round: int  # streams that it has finished
    state: LaneState


class Player:
    """One engine's lanes."""

    def __init__(
        self,
        *,
        engine: VLLMEngine,
        environment: Environment,
        rules: Rules,
        numbers: range,
        total: int,
        temperature: float,
        price: int,
        bought: Callable[[Receipt], None],
    ) -> None:
        """Open every lane at the start of its first stream.

        Args:
            numbers: of the lanes played here.
            total: lanes of all actors.
            temperature: of sampling.
            price: of one ask, thousandths.
            bought: called with the receipt of every ask that training pays for.
        """
        self.engine = engine
        self.played = 0  # sessions of the call that runs
        self._environment = environment
        self._rules = rules
        self._total = total
        self._temperature = temperature
        self._price = price
        self._bought = bought
        self._rounds = dict.fromkeys(numbers, 0)
        self._lanes = {number: self._open(number) for number in numbers}

    def _open(self, number: int) -> Lane:
        index = number + self._rounds[number] * self._total
        stream = self._environment.stream(split="train", index=index)
        return Lane(stream, self._rules, price=self._price, bought=self._bought)

    async def collect(self, sessions: int) -> list[Session]:
        """Play this many sessions on every lane, all lanes at once; lane after lane, each in stream order.

        Raises:
            EngineError: the engine is lost.
        """
        self.played = 0
        policy = EnginePolicy(self.engine, temperature=self._temperature)
        return await _together([self._play_on(number, sessions, policy) for number in self._lanes])

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
        """Play streams from their start with empty memories, in the order of `plays`; greedily in lockstep.

        Raises:
            EngineError: the engine is lost.
        """
        self.played = 0
        await self.engine.forget()
        seats = min(len(plays), len(self._lanes))
        shares = [range(seat, len(plays), seats) for seat in range(seats)]
        lockstep = Lockstep(self.engine, seats=seats, temperature=0.0)
        sampling = EnginePolicy(self.engine, temperature=self._temperature)
        results: dict[int, list[Session]] = {}

        async def play(seat: int) -> list[Session]:
            for place in shares[seat]:
                policy = lockstep.seat(seat) if greedy else sampling
                results[place] = await self._play_stream(plays[place], split=split, policy=policy)
            lockstep.leave(seat)
            return []

        await _together([play(seat) for seat in range(seats)])
        return [session for place in range(len(plays)) for session in results[place]]

    async def _play_stream(self, play: Play, *, split: str, policy: Policy) -> list[Session]:
        lane = Lane(self._environment.stream(split=split, index=play.index), self._rules, price=self._price)
        sessions: list[Session] = []
        for _ in range(play.sessions):
            sessions.append(await lane.play(policy))
            self.played += 1
        return sessions

    def places(self) -> list[Place]:
        """Where every lane stands; only between two calls of `collect`."""
        return [
            Place(number=number, round=self._rounds[number], state=lane.state()) for number, lane in self._lanes.items()
        ]

    def restore(self, places: Sequence[Place]) -> None:
        """Put this actor's lanes back where they stood.

        Raises:
            ConfigError: the streams of this run are not those of the checkpoint.
        """
        for place in places:
            lane = self._lanes[place.number]
            if self._rounds[place.number] != place.round:
                self._rounds[place.number] = place.round
                lane = self._open(place.number)  # otherwise the lane itself goes back: it knows what it has paid for
            if lane.stream.id != place.state.stream:
                raise ConfigError(f"resume: lane {place.number} stood in {place.state.stream}, found {lane.stream.id}")
            lane.restore(place.state)
            self._lanes[place.number] = lane


async def _together(work: Sequence[Coroutine[None, None, list[Session]]]) -> list[Session]:
    """Run all at once, join what they return in order; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return [session for sessions in await asyncio.gather(*tasks) for session in sessions]
    finally:
        for task in tasks:
            task.cancel()
