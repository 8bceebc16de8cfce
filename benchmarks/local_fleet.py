"""The real pool, fleet and players in one process, without Ray and engines: what waits there only sleeps.

A turn, a query and an ask take a time that is log-normal and depends only on what it is drawn for: so runs with other
settings wait for the same. Orders and reports are pickled as on their way through Ray.
"""

import asyncio
import pickle
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from agile_ray.agent.environment import Found, Question, Submission
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.agent.functions import Function
from agile_ray.agent.policy import Completion, Prompt, SessionView
from agile_ray.config import RunConfig
from agile_ray.errors import EngineError
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import Journals
from agile_ray.scripted.head_start import AskingShares
from agile_ray.weights import WeightsRef
from benchmarks.event_loop import WORDS, Script
from rollout.fleet.dispatch import Bought
from rollout.fleet.messages import LanePosition, Orders, Report
from rollout.player import Player
from rollout.pool import RolloutPool
from rollout.rules import build_rules
from rollout.settings import RolloutSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Medians of what is waited for, seconds; 0 waits for nothing."""

    turn_s: float = 0.0  # the engine
    tool_s: float = 0.0
    ask_s: float = 0.0  # the expert
    spread: float = 1.0  # standard deviation of the logarithm of tool and expert; a turn has a third of it


class World:
    """An environment, an expert and an engine that take their time, and note how much."""

    search_function = Function.SEARCH_PRODUCT
    source, reliability = "sleeping", 1.0

    def __init__(self, waits: Waits, *, stream_sessions: int) -> None:
        """`stream_sessions`: length of every stream."""
        self._waits = waits
        self._length = stream_sessions
        self.waited_s: Counter[tuple[str, int]] = Counter()
        """Of each session, by its stream and position."""

    def turn_s(self, stream: str, position: int, number: int) -> float:
        """How long the engine takes for a turn."""
        return self._drawn(self._waits.turn_s, self._waits.spread / 3, "turn", stream, position, number)

    def tool_s(self, stream: str, position: int) -> float:
        """How long the tool takes."""
        return self._drawn(self._waits.tool_s, self._waits.spread, "tool", stream, position, 0)

    def _drawn(self, median_s: float, spread: float, what: str, stream: str, position: int, number: int) -> float:
        if not median_s:
            return 0.0
        taken_s = median_s * random.Random(f"{what} {stream} {position} {number}").lognormvariate(0.0, spread)
        self.waited_s[stream, position] += taken_s
        return taken_s

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """Answer truly, after a while."""
        await asyncio.sleep(self._drawn(self._waits.ask_s, self._waits.spread, "ask", key.stream, key.position, 0))
        return Advice(text=question.advice, answer=question.answer)

    def stream(self, *, split: str, index: int) -> "WorldStream":
        """The stream with this index."""
        return WorldStream(f"{split}/{index}", self._length, self)

    def streams(self, split: str) -> None:
        """None: every split has infinitely many."""
        del split


class WorldStream:
    """Questions that a tool answers late."""

    def __init__(self, name: str, sessions: int, world: World) -> None:
        self.id = name
        self.questions = tuple(_question(name, position) for position in range(sessions))
        self._world = world

    def search(self, query: str) -> Found:
        """Wait as if the table were on another machine; a query is the position of its session."""
        time.sleep(self._world.tool_s(self.id, int(query)))
        return Found(text="rows : p1", rows=("p1",), bad_query=False)

    def judge(self, question: Question, submission: Submission) -> bool:
        return submission.text == question.answer


def _question(stream: str, position: int) -> Question:
    text = " ".join(random.Random(f"{stream} {position}").choices(WORDS, k=12))
    return Question(id=f"q{position}", text=text, answer="yes", product=stream, knowledge=text, query=str(position))


class SleepingPlayer(Player):
    """A player whose engine writes prepared turns after a while."""

    world: World
    script = Script()
    version = 0
    turns = 0

    def _seating(self, *, seats: int, greedy: bool) -> "SleepingPlayer":
        del seats, greedy
        return self

    def seat(self, number: int) -> "SleepingPlayer":
        """All seats are alike."""
        del number
        return self

    def leave(self, number: int) -> None:
        """Nobody waits for this lane."""

    async def write(self, view: Prompt) -> Completion:
        """Write a turn."""
        seen = cast("SessionView", view)  # what plays is a session
        self.turns += 1
        if wait_s := self.world.turn_s(seen.stream.id, seen.position, len(seen.context_ids)):
            await asyncio.sleep(wait_s)
        written = await self.script.write(seen)
        return replace(written, versions=np.full(len(written.ids), self.version, np.int32))


Sleeping = TypeVar("Sleeping", bound=SleepingPlayer)


class LocalWorker:
    """A rollout actor without a process. Implements `rollout.fleet.dispatch.Worker`."""

    def __init__(self, player: SleepingPlayer) -> None:
        self.player = player

    async def start(self) -> None:
        """Nothing to start."""

    async def load(self, weights: WeightsRef) -> None:
        """Serve a version."""
        self.player.version = weights.version

    def order(self, orders: Orders) -> None:
        """Carry out orders."""
        self.player.order(pickle.loads(pickle.dumps(orders)))  # noqa: S301  our own

    async def report(self, wait_s: float) -> Report:
        """What has happened since the last report."""
        return pickle.loads(pickle.dumps(await self.player.report(wait_s)))  # noqa: S301  our own

    async def spread(self, numbers: Sequence[int], shares: AskingShares) -> list[LanePosition]:
        """Refused: lanes begin at the start of their streams."""
        del numbers, shares
        raise EngineError("local fleet: lanes begin at the start of their streams")

    async def reopen(self) -> None:
        """Refused: a measurement has lanes of its own."""
        raise EngineError("local fleet: open another pool")

    async def sleep(self) -> None:
        """No GPU to leave."""

    async def wake(self) -> None:
        """No GPU to come back to."""

    async def kill(self) -> None:
        """Stop playing."""
        self.player.close()

    def bought(self) -> Bought:
        """Nothing: no worker is lost."""
        return Bought()


def local_player(config: RunConfig, world: World, *, writer: str, kind: type[Sleeping]) -> Sleeping:
    """A player of lanes in a world; `writer` names it in the books."""
    rules = build_rules(world, env=config.env, agent=config.agent, memory=config.memory, model=None, seed=config.seed)
    player = kind(
        engine=NoEngine(),
        environment=world,
        rules=replace(rules, expert=world),
        total=config.loop.lanes,
        sessions=config.loop.sessions_per_lane,
        seats=config.seats,
        temperature=1.0,
        seed=None,
        books=Journals(RunFolder(config.run_folder.absolute()), writer),
        deadline_s=config.cluster.deadline_s,
    )
    player.world = world
    return player


class LocalPool(RolloutPool):
    """The real pool on local workers."""

    def __init__(self, config: RunConfig, world: World) -> None:
        """Start the workers."""
        self._config, self._world = config, world
        super().__init__(RolloutSettings.of(config), model=config.model.path, logs=config.run_folder)
        self.wait_until_ready()

    def _hire(self, index: int, hired: int) -> LocalWorker:
        return LocalWorker(
            local_player(self._config, self._world, writer=f"{index}.{hired}.{self._start}", kind=SleepingPlayer)
        )

    def _end_workers(self) -> None:
        """They end with the pool's thread."""

    @property
    def turns(self) -> int:
        """That were played so far."""
        return sum(cast("LocalWorker", worker).player.turns for worker in self._fleet.workers)


class NoEngine:
    """Stands where a player has an engine; nothing is asked of it."""

    async def generate(self, prompt_ids: Sequence[int], *, max_tokens: int, temperature: float) -> Completion:
        """Refused."""
        del prompt_ids, max_tokens, temperature
        raise EngineError("local fleet: there is no engine")

    async def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: Sequence[int],
        temperature: float,
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Refused."""
        del prompts, max_tokens, temperature, seeds
        raise EngineError("local fleet: there is no engine")

    async def forget(self) -> None:
        """Nothing to forget."""


def local_config(folder: Path, **loop: int) -> RunConfig:
    """A configuration of a local fleet.

    Args:
        folder: that holds the run's.
        loop: keys of `loop`, and `actors` and `seats`.
    """
    rollout = {name: loop.pop(name) for name in ("actors", "seats") if name in loop}
    return RunConfig.model_validate(
        {
            "run": {"name": "local", "folder": folder},
            "model": {"path": folder},
            "env": {"name": "recurring"},  # the pool builds it, and asks nothing of it
            "agent": {"turn_tokens": 96, "session_tokens": 640, "expert_s": 3600.0},
            "rollout": rollout,
            "loop": {**loop, "evaluate_every": None},
            "ppo": {"minibatches": 1},
        }
    )
