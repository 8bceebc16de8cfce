"""Builds the parts of a training or a replay from a configuration: the only module that knows every class."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agile_ray.agent.environment import Environment
from agile_ray.agent.rules import Rules
from agile_ray.config import RunConfig
from agile_ray.credit.assign import CreditAssigner
from agile_ray.effects import machines_of
from agile_ray.record.checkpoints import KEPT, FolderCheckpoints, Lanes, Saved, Stateful
from agile_ray.record.folder import CheckpointFolder, RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.record.roll_call import RollCall, roll_call
from agile_ray.types import Int32, RunState
from launch.cluster.room import Room, reserve
from launch.cluster.turns import Turns
from launch.run.progress import Progress
from rollout.settings import RolloutSettings

if TYPE_CHECKING:
    from learner.group import LearnerGroup
    from rollout.pool import RolloutPool

PROBES = 16
"""Number of token sequences that every weight sync is checked with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a training."""

    config: RunConfig
    environment: Environment
    rules: Rules
    learners: "LearnerGroup"
    rollouts: "RolloutPool"
    credit: CreditAssigner
    checkpoints: FolderCheckpoints
    recorder: RunRecorder
    progress: Progress
    stopping: Callable[[], bool]

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder.of(self.config)

    @property
    def sft(self) -> Path:
        """The frozen SFT policy, a plain Hugging Face folder; it exists once imitation is finished."""
        return self.folder.sft.path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What writes into a run's folder."""

    recorder: RunRecorder
    checkpoints: FolderCheckpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Running engines and learner ranks; several runs may use them one after the other."""

    config: RunConfig  # the one that they were started with
    room: Room  # that they run in
    learners: "LearnerGroup"
    rollouts: "RolloutPool"
    turns: Turns = field(default_factory=Turns)

    def fit(self, config: RunConfig) -> bool:
        """Whether another run can use them as they are."""
        return machines_of(self.config) == machines_of(config)

    def reopen(self, config: RunConfig, progress: Progress) -> None:
        """Hand them to another run; the learners keep their weights until they load others."""
        self.learners.reopen(ppo=config.ppo, imitation=config.imitation)
        self.rollouts.reopen(RolloutSettings.of(config), bar=progress.bar)

    def restart_learners(self, config: RunConfig, progress: Progress) -> None:
        """Start fresh ranks in the place of lost ones, and open the lanes anew.

        Args:
            config: of the run that uses the machines now.

        Raises:
            AgileError: a rank did not start, and the others are ended; or the engines can't go on.
        """
        self.rollouts.reopen(RolloutSettings.of(config), bar=progress.bar)
        self.turns.renew(lambda: restart_learners(self.learners, config, progress))
        _connect(self.config, self.learners, self.rollouts)

    def counts(self) -> Mapping[str, int]:
        """What happened to engines and ranks since the last call, counted by name."""
        return {**self.rollouts.counts(), **self.learners.counts()}

    def close(self) -> None:
        """End the engines, then the ranks, so that neither waits for the other; then give their room back."""
        self.rollouts.shutdown()
        self.learners.shutdown()
        self.room.close()


def start(config: RunConfig, environment: Environment, progress: Progress) -> Machines:
    """Reserve the run's room, and start engines and learners there in parallel.

    With `cluster.colocate` the engines start first and sleep, because each measures the memory of its GPU.

    Raises:
        ConfigError: the cluster has less room than the run needs.
        AgileError: a part did not start; the others are ended, and the room is free again.
    """
    from rollout.pool import RolloutPool

    run, turns = RunFolder.of(config), Turns()
    with ExitStack() as undo, roll_call(run) as call:
        room = reserve(config, engines=config.rollout.actors, ranks=config.learner.ranks)
        undo.callback(room.close)
        rollouts = RolloutPool(
            RolloutSettings.of(config),
            model=config.model.path,
            logs=run.logs,
            bar=progress.bar,
            roll_call=call,
            places=room.engines,
            take_turn=turns.play,
            say=progress.say,
        )
        undo.callback(rollouts.shutdown)
        with progress.waiting(f"still starting engines and learners; the engines write to {run.logs}"):
            if config.cluster.colocate:
                rollouts.wait_until_ready()
                rollouts.sleep()
            learners = start_learners(
                config, probes(environment, rules_of(config, environment)), call, room, take_turn=turns.learn
            )
            undo.callback(learners.shutdown)
            if config.cluster.colocate:
                turns.begin(learners, rollouts)
            else:
                rollouts.wait_until_ready()
            _connect(config, learners, rollouts)
        undo.pop_all()
    return Machines(config=config, room=room, learners=learners, rollouts=rollouts, turns=turns)


def _connect(config: RunConfig, learners: "LearnerGroup", rollouts: "RolloutPool") -> None:
    if config.rollout.transport == "nccl":
        workers = config.rollout.actors * config.rollout.tensor_parallel
        rollouts.connect(lambda handles: learners.connect(handles, workers=workers))


def start_learners(
    config: RunConfig,
    probes: Sequence[Int32],
    call: RollCall,
    room: Room,
    *,
    take_turn: Callable[[], None] = lambda: None,
) -> "LearnerGroup":
    """Start the learner ranks without engines.

    Args:
        config: of the run.
        probes: token sequences that every published version is checked with.
        call: roll call of the run's folder, which the ranks answer.
        room: where they run.
        take_turn: called before the ranks compute; by default they share their GPUs with nobody.

    Raises:
        AgileError: a rank did not start; the others are ended.
    """
    from learner.group import LearnerGroup
    from rollout.tokenizer import HFTokenizer

    tokenizer = HFTokenizer(config.model.path)
    return LearnerGroup(
        config.model.path,
        learner=config.learner,
        ppo=config.ppo,
        imitation=config.imitation,
        rollout=config.rollout,
        cluster=config.cluster,
        function_ids=list(tokenizer.functions.values()),
        probes=probes,
        seed=config.seed,
        roll_call=call,
        places=room.ranks,
        take_turn=take_turn,
    )


def restart_learners(learners: "LearnerGroup", config: RunConfig, progress: Progress) -> None:
    """Start fresh ranks in the place of lost ones.

    Raises:
        AgileError: a rank did not start; the others are ended.
    """
    learners.reopen(ppo=config.ppo, imitation=config.imitation)
    with roll_call(RunFolder.of(config)) as call, progress.waiting("still starting fresh learners"):
        learners.restart(call)


def assemble(
    config: RunConfig, environment: Environment, machines: Machines, progress: Progress, stopping: Callable[[], bool]
) -> Parts:
    """Open the run's folder, and combine it with running machines."""
    credit = CreditAssigner(config.credit)
    record = open_record(
        config,
        learners=machines.learners,
        lanes=machines.rollouts,
        credit=credit,
        sft=RunFolder.of(config).sft,
        progress=progress,
        fleet=machines.counts,
    )
    return Parts(
        config=config,
        environment=environment,
        rules=rules_of(config, environment),
        learners=machines.learners,
        rollouts=machines.rollouts,
        credit=credit,
        checkpoints=record.checkpoints,
        recorder=record.recorder,
        progress=progress,
        stopping=stopping,
    )


def open_record(
    config: RunConfig,
    *,
    learners: Saved,
    lanes: Lanes,
    credit: Stateful,
    sft: CheckpointFolder,
    progress: Progress,
    fleet: Callable[[], Mapping[str, int]] = dict,
) -> RunRecord:
    """Open the recorder and the checkpoints of a run's folder.

    Args:
        config: of the run.
        learners: saved and restored by checkpoints.
        lanes: of the rollouts; saved and restored by checkpoints.
        credit: earlier iterations that credit assignment uses; saved and restored by checkpoints.
        sft: the last checkpoint of imitation, where a run without checkpoints begins.
        progress: shows the recorder's lines and phases, and what a resumed run discards.
        fleet: returns what happened to engines and learner ranks since it was called last.
    """
    run = RunFolder.of(config)
    recorder = RunRecorder(run, console=progress.line, phase=progress.phase, fleet=fleet)

    def resumed(state: RunState) -> None:
        rollback = recorder.resume(state)
        if state.imitation_steps or rollback.lines:
            progress.say(
                f"resumed after {state.imitation_steps} imitation steps and {state.iteration} iterations; discarded "
                f"{rollback.segments} segments and {rollback.seconds:.0f} s of later work"
            )
        if rollback.damaged:
            progress.say(
                f"discarded {len(rollback.damaged)} damaged segment files of later work, with the receipts "
                f"in them: {', '.join(rollback.damaged)}"
            )

    checkpoints = FolderCheckpoints(
        run,
        keep=KEPT,
        learners=learners,
        lanes=lanes,
        credit=credit,
        resumed=resumed,
        sft=sft,
        say=progress.say,
    )
    return RunRecord(recorder=recorder, checkpoints=checkpoints)


def probes(environment: Environment, rules: Rules) -> list[Int32]:
    """The first tokens of training sessions, on which engines and learners must agree."""
    questions = environment.stream(split="train", index=0).questions[:PROBES]
    texts = (rules.tokenizer.encode(question.shown) for question in questions)
    longest = rules.agent.session_tokens - 1
    return [np.array([rules.tokenizer.bos_id, *ids][:longest], dtype=np.int32) for ids in texts]


def rules_of(config: RunConfig, environment: Environment) -> Rules:
    """The rules of a run's lanes, with the tokenizer of its model."""
    from rollout.rules import build_rules

    return build_rules(
        environment,
        env=config.env,
        agent=config.agent,
        memory=config.memory,
        model=config.model.path,
        seed=config.seed,
    )
