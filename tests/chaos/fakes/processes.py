"""What the fake processes of a run do: rollout actor, engine core, learner rank.

Real in an actor: player, lanes, executor, memory, journals. Fake: the policy is a script, tokens are words, and the
engine core only takes its time and says which version it serves. A rank learns nothing; it notes what it was given.
"""

import asyncio
import json
import random
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import setproctitle

import envs
from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey, GoldExpert
from agile_ray.agent.policy import Completion, SessionView
from agile_ray.errors import EngineError
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import Journals
from agile_ray.scripted.references import Habits, reference
from agile_ray.weights import WeightsRef
from rollout.fleet.messages import Orders
from rollout.player import Player
from rollout.rules import build_rules
from rollout.settings import ActorSettings
from tests.chaos.fakes.calls import Peer, serve
from tests.chaos.fakes.nursery import fork
from tests.chaos.processes import TITLES, Role
from tests.fakes.engine import FakeEngine

TURN_S, ASK_S, LEARN_S, LOAD_S = 0.008, 0.02, 0.03, 0.01
"""Mean times of a turn, an answer of the expert, a call of a rank, and of loading a version, seconds."""
ASKED_SHARE = 0.5


def paid(run: RunFolder) -> Path:
    """Where the expert of a fake run notes what it was paid for: a key a line."""
    return run.path / "paid.txt"


def _title(role: Role, index: int) -> None:
    setproctitle.setproctitle(f"{next(title for title, known in TITLES.items() if known is role)} fake {index}")


def actor(door: socket.socket, settings: ActorSettings) -> None:
    """A rollout actor with an engine core."""
    _title(Role.ACTOR, settings.index)
    core = fork(engine_core, settings.index, closes=[door])
    asyncio.run(_Actor(settings).live(door, core.door))


class _Actor:
    def __init__(self, settings: ActorSettings) -> None:
        self._settings = settings
        self._core = Peer(
            f"rollout: the engine core of actor {settings.index}",
            lost=EngineError,
            deadline_s=settings.common.deadline_s,
        )

    async def live(self, door: socket.socket, core: socket.socket) -> None:
        await self._core.open(core)
        common = self._settings.common
        environment = envs.build(common.env, seed=common.seed)
        rules = build_rules(
            environment, env=common.env, agent=common.agent, memory=common.memory, model=None, seed=common.seed
        )
        run = RunFolder(common.run_folder)
        self._player = _ScriptedPlayer(
            engine=FakeEngine(),
            environment=environment,
            rules=replace(rules, expert=_NotingExpert(paid(run))) if isinstance(rules.expert, GoldExpert) else rules,
            total=common.lanes,
            sessions=common.sessions,
            seats=common.seats,
            temperature=1.0,
            seed=None,
            books=Journals(run, self._settings.writer),
            deadline_s=common.deadline_s,
        )
        self._player.core = self._core
        handlers = {"start": self.start, "load": self.load, "order": self.order, "report": self._player.report}
        await serve(door, handlers)

    async def start(self) -> None:
        await self._core.ask("serve", 0)

    async def load(self, weights: WeightsRef) -> None:
        await self._core.ask("serve", weights.version)

    async def order(self, orders: Orders) -> None:
        self._player.order(orders)


class _ScriptedPlayer(Player):
    """A player whose policy is a script; the engine core says when a turn is written, and by which version."""

    core: Peer

    def _seating(self, *, seats: int, greedy: bool) -> "_ScriptedPlayer":
        return self

    def seat(self, number: int) -> "_ScriptedPlayer":
        return self

    def leave(self, number: int) -> None:
        pass

    async def write(self, view: SessionView) -> Completion:
        version = await self.core.ask("generate")
        script = reference("random", self._environment, Habits(asked_share=ASKED_SHARE))
        written = await script.write(view)
        return replace(written, versions=np.full(len(written.ids), version, np.int32))


class _NotingExpert:
    """Answers truly; is paid before it answers."""

    source, reliability = "noting", 1.0

    def __init__(self, path: Path) -> None:
        self._path = path

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        with self._path.open("ab", buffering=0) as file:
            file.write(f"{key}\n".encode())
        await asyncio.sleep(random.expovariate(1 / ASK_S))
        return Advice(text=question.advice, answer=question.answer)


def engine_core(door: socket.socket, index: int) -> None:
    """An engine core: generates after a while, and serves the version that it was given last."""
    _title(Role.ENGINE, index)
    served = 0

    async def load(version: int) -> None:
        nonlocal served
        await asyncio.sleep(LOAD_S)
        served = version

    async def generate() -> int:
        await asyncio.sleep(random.expovariate(1 / TURN_S))
        return served

    asyncio.run(serve(door, {"serve": load, "generate": generate}))


def rank(door: socket.socket, index: int) -> None:
    """A learner rank: its weights are how often it has learned each segment."""
    _title(Role.RANK, index)
    learned: Counter[str] = Counter()

    async def compute() -> None:
        await asyncio.sleep(LEARN_S / 2)

    async def learn(keys: Sequence[str]) -> None:
        for key in keys:  # half of a batch may be learned when this process dies
            learned[key] += 1
            await asyncio.sleep(LEARN_S / len(keys))

    async def weights() -> dict[str, int]:
        return dict(learned)

    async def save(folder: Path) -> None:
        (folder / f"rank-{index}.json").write_text(json.dumps(learned))

    async def load(folder: Path) -> None:
        learned.clear()
        learned.update(json.loads((folder / f"rank-{index}.json").read_text()))

    handlers = {"compute": compute, "learn": learn, "weights": weights, "save": save, "load": load}
    asyncio.run(serve(door, handlers))
