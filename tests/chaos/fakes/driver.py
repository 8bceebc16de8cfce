"""The driver of a fake run: the real loop, pool, fleet, lanes, credit, recorder, checkpoints and books; no Ray.

The processes that it starts are those of tests/chaos/fakes/processes.py. Imitation is one step on nothing.
"""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from agile_ray import loop
from agile_ray.config import RunConfig
from agile_ray.credit.assign import CreditAssigner
from agile_ray.errors import EngineError, LearnerError
from agile_ray.evaluation.score import score
from agile_ray.record import history, ledger
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import read_journals
from agile_ray.record.whole import write_whole
from agile_ray.types import Demonstration, Segment, TokenScores, TrainingRow, Update
from agile_ray.weights import WeightsRef
from launch.border import border
from launch.run.assembly import open_record
from launch.run.lock import alone
from launch.run.progress import Progress
from rollout.fleet import dispatch
from rollout.fleet.dispatch import Bought
from rollout.fleet.messages import Orders, Report
from rollout.pool import RolloutPool
from rollout.settings import ActorSettings, RolloutSettings
from tests.chaos.fakes.calls import Peer
from tests.chaos.fakes.nursery import Nursery
from tests.chaos.fakes.processes import actor, rank
from tests.fakes.parts import zeros

ITERATIONS, LANES, SESSIONS, ACTORS, SEATS, RANKS, MAX_AGE = 5, 6, 6, 2, 2, 2, 1
DEADLINE_S, STUCK_S = 60.0, 6.0
"""Of every wait, also for an actor's report; and of a run in which it is waited for, since a process is stopped. A busy
machine is not to miss either."""


Expert = str | Mapping[str, str]
"""As `env.expert`."""


def config(name: str, folder: Path, expert: Expert = "gold", *, deadline_s: float = DEADLINE_S) -> RunConfig:
    """Of every fake run. A lane plays more sessions than its first stream has."""
    return RunConfig.model_validate(
        {
            "run": {"name": name, "folder": folder},
            "model": {"path": "none"},
            "env": {"name": "recurring", "expert": expert},
            "agent": {"expert_s": 60.0},
            "memory": {"threshold": 0.65},
            "ppo": {"minibatches": 1},
            "learner": {"ranks": RANKS},
            "rollout": {"actors": ACTORS, "seats": SEATS},
            "loop": {
                "lanes": LANES,
                "sessions_per_lane": SESSIONS,
                "iterations": ITERATIONS,
                "max_age": MAX_AGE,
                "checkpoint_every": 2,
                "evaluate_every": 3,
            },
            "evaluate": {"sessions": 8, "validation_sessions": 8},
            "cluster": {"deadline_s": deadline_s},
        }
    )


def main(name: str, folder: Path, log: Path, expert: Expert, environ: Mapping[str, str], *, deadline_s: float) -> None:
    """Be the driver of a run; what it prints goes on in the log."""
    with log.open("ab") as file:
        for output in (1, 2):
            os.dup2(file.fileno(), output)
    os.environ.update(environ)
    nursery = Nursery()  # before the lock, which its children would hold, and before threads
    dispatch.HEARTBEAT_S = deadline_s
    with border():
        train(config(name, folder, expert, deadline_s=deadline_s), nursery)


def train(config: RunConfig, nursery: Nursery) -> None:
    """Train until the run is finished."""
    run = RunFolder.of(config)
    if run.is_finished:
        return
    with alone(run), Progress(imitation_steps=0, iterations=config.loop.iterations, run=run) as progress:
        learners = Learners(nursery, deadline_s=config.cluster.deadline_s)
        pool = Pool(config, nursery, progress)
        try:
            learners.open()
            pool.wait_until_ready()
            _train(config, learners, pool, progress)
        finally:
            pool.shutdown()
            learners.shutdown()


def _train(config: RunConfig, learners: "Learners", pool: "Pool", progress: Progress) -> None:
    run, credit = RunFolder.of(config), CreditAssigner(config.credit)
    record = open_record(
        config, learners=learners, lanes=pool, credit=credit, sft=run.sft, progress=progress, fleet=pool.counts
    )
    with closing(record.recorder):
        state = record.checkpoints.restore()
        if not run.sft.path.exists():
            state = loop.imitate(
                config,
                state,
                [[]],
                learners=learners,
                checkpoints=record.checkpoints,
                recorder=record.recorder,
                stopping=lambda: False,
                progress=lambda _: None,
            )
            record.checkpoints.keep_sft(state)
        state = loop.train(
            config,
            state,
            rollouts=pool,
            learners=learners,
            credit=credit,
            checkpoints=record.checkpoints,
            recorder=record.recorder,
            stopping=lambda: False,
        )
        pool.load(learners.publish(state.version))
        found = score(pool.evaluate(split="test", sessions=config.evaluate.sessions, greedy=True))
    books = ledger.audit(run, history.read(run.history))
    accounts = {name: asdict(getattr(books, name)) for name in ("trained", "failed", "abandoned")}
    policy = {"total_score": found.total_score, "ci95": found.ci95}
    write_whole(run.report, json.dumps({"ppo": policy, "ledger": accounts}).encode())


class Worker:
    """The driver's side of a fake rollout actor. Implements `rollout.fleet.dispatch.Worker`."""

    def __init__(self, nursery: Nursery, settings: ActorSettings) -> None:
        self._settings = settings
        self.child = nursery.start(actor, settings)
        deadline_s = settings.common.deadline_s
        self._peer = Peer(f"rollout: actor {settings.index}", lost=EngineError, deadline_s=deadline_s + 1)

    async def start(self) -> None:
        await self._peer.open(self.child.door)
        await self._peer.ask("start")

    async def load(self, weights: WeightsRef) -> None:
        await self._peer.ask("load", weights)

    def order(self, orders: Orders) -> None:
        self._peer.tell("order", orders)

    async def report(self, wait_s: float) -> Report:
        return await self._peer.ask("report", wait_s)

    async def kill(self) -> None:
        self.child.kill()
        await asyncio.to_thread(self.child.wait)

    def bought(self) -> Bought:
        run = RunFolder(self._settings.common.run_folder)
        found = read_journals(run.journals(self._settings.writer))
        return Bought(receipts=found.receipts, unsure=len(found.unsure))


class Pool(RolloutPool):
    """The real pool, on processes that Ray did not start."""

    def __init__(self, config: RunConfig, nursery: Nursery, progress: Progress) -> None:
        self._nursery = nursery
        settings = RolloutSettings.of(config)
        super().__init__(settings, model=Path("none"), logs=Path("none"), bar=progress.bar, say=progress.say)

    def _hire(self, index: int, hired: int) -> Worker:
        path = Path("none")
        settings = ActorSettings(
            common=self._settings, index=index, hired=hired, start=self._start, model=path, log=path
        )
        return Worker(self._nursery, settings)

    def _end_workers(self) -> None:
        for worker in self._fleet.workers:
            worker.child.kill()
            worker.child.wait()


class Learners:
    """Fake ranks; rank k of K learns segments k, k + K, ... Implements `agile_ray.protocols.Learners`."""

    def __init__(self, nursery: Nursery, *, deadline_s: float) -> None:
        self._children = [nursery.start(rank, index) for index in range(RANKS)]
        names = [f"learner: rank {index}" for index in range(RANKS)]
        self._ranks = [Peer(name, lost=LearnerError, deadline_s=deadline_s) for name in names]
        self._loop = asyncio.new_event_loop()

    def open(self) -> None:
        """Begin to listen to the ranks."""
        for peer, child in zip(self._ranks, self._children, strict=True):
            self._loop.run_until_complete(peer.open(child.door))

    def imitate(self, demonstrations: Sequence[Demonstration], *, step: int, steps: int) -> Update:
        self._ask("compute", [()] * RANKS)
        return Update(tokens=0, padding=0.0, seconds=1.0, metrics={"loss": 0.0})

    def score(self, segments: Sequence[Segment], prefixes: Sequence[Segment]) -> tuple[list[TokenScores], ...]:
        self._ask("compute", [()] * RANKS)
        return [zeros(segment) for segment in segments], [zeros(prefix) for prefix in prefixes]

    def learn(self, rows: Sequence[TrainingRow], *, seed: int, progress: float) -> Update:
        segments = [row.segment for row in rows]
        keys = [f"{segment.stream}#{segment.position}#{segment.index}" for segment in segments]
        self._ask("learn", [(keys[index::RANKS],) for index in range(RANKS)])
        advantages = tuple(np.zeros(segment.actions, np.float32) for segment in segments)
        tokens = sum(len(segment.token_ids) for segment in segments)
        return Update(tokens=tokens, padding=0.0, seconds=1.0, metrics={"kl_nats": 0.0}, advantages=advantages)

    def publish(self, version: int) -> WeightsRef:
        self._ask("compute", [()] * RANKS)
        return WeightsRef(version=version, buckets=(), blobs=(), probes=())

    def export(self, folder: Path) -> None:
        """As weights: how often each segment was learned, as JSON, in the order of their keys."""
        learned = [line for counts in self._ask("weights", [()] * RANKS) for line in counts.items()]
        content = json.dumps(sorted(learned)).encode()
        (folder / "config.json").write_text("{}")
        save_file({"learned": np.frombuffer(content, np.uint8)}, folder / "model.safetensors")

    def save(self, folder: Path) -> None:
        self._ask("save", [(folder,)] * RANKS)

    def load(self, folder: Path) -> None:
        self._ask("load", [(folder,)] * RANKS)

    def shutdown(self) -> None:
        for peer in self._ranks:
            self._loop.run_until_complete(peer.close())
        for child in self._children:
            child.kill()
            child.wait()

    def _ask(self, call: str, arguments: Sequence[tuple[object, ...]]) -> list:
        async def together() -> list:
            asked = (peer.ask(call, *words) for peer, words in zip(self._ranks, arguments, strict=True))
            return await asyncio.gather(*asked, return_exceptions=True)

        answers = self._loop.run_until_complete(together())
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers
