"""Builds what a run is made of from its configuration: the only place that knows every class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agile_ray.agent.environment import Environment
from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Rules
from agile_ray.config import RunConfig
from agile_ray.record import store
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.recorder import SEGMENTS, RunRecorder
from agile_ray.types import Int32, RunState, Session
from launch.run.progress import Progress

if TYPE_CHECKING:
    from learner.group import LearnerGroup
    from rollout.pool import RolloutPool

SFT = "sft"
PROBES = 16
"""Token sequences by which every sync is checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A run, put together."""

    config: RunConfig
    environment: Environment
    rules: Rules
    learners: "LearnerGroup"
    rollouts: "RolloutPool"
    checkpoints: FolderCheckpoints
    recorder: RunRecorder
    progress: Progress
    stopping: Callable[[], bool]

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.config.run_folder

    @property
    def sft(self) -> Path:
        """The frozen SFT policy, a plain Hugging Face folder; there once imitation is finished."""
        return self.folder / SFT

    def past(self, state: RunState) -> list[list[Session]]:
        """What was collected in the iterations before, as far as credit looks back, the oldest first."""
        return store.before(self.folder / SEGMENTS, state.iteration, window=self.config.credit.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Engines and learner ranks that are up; one run after the other may use them."""

    config: RunConfig  # what they were started with
    learners: "LearnerGroup"
    rollouts: "RolloutPool"

    def fit(self, config: RunConfig) -> bool:
        """Whether another run can use them as they are."""
        return _started_with(self.config) == _started_with(config)

    def reopen(self, config: RunConfig, progress: Progress) -> None:
        """Make them another run's; the learners keep their weights until they are given others."""
        self.learners.reopen(ppo=config.ppo, imitation=config.imitation)
        from rollout.settings import RolloutSettings

        self.rollouts.reopen(RolloutSettings.of(config), bar=progress.bar)

    def close(self) -> None:
        """End engines and ranks, in the order that leaves nothing waiting."""
        self.rollouts.shutdown()
        self.learners.shutdown()


def _started_with(config: RunConfig) -> tuple[object, ...]:
    """What machines can't change once they are up; learners choose how they attend by imitation's dtype too."""
    return (
        config.model,
        config.rollout,
        config.learner,
        config.cluster,
        config.agent.session_tokens,
        config.imitation.dtype,
    )


def start(config: RunConfig, environment: Environment, progress: Progress) -> Machines:
    """Start engines and learners, side by side.

    Raises:
        AgileError: something did not start; whatever had is ended.
    """
    from rollout.pool import RolloutPool
    from rollout.settings import RolloutSettings

    logs = config.run_folder / "logs"
    rollouts = RolloutPool(RolloutSettings.of(config), model=config.model.path, logs=logs, bar=progress.bar)
    try:
        learners = start_learners(config, probes(environment, _rules(config, environment)))
        rollouts.wait_until_ready()
        if config.rollout.transport == "nccl":  # not run here: it needs GPUs
            learners.connect(rollouts.handles, workers=config.rollout.actors * config.rollout.tensor_parallel)
    except BaseException:
        rollouts.shutdown()
        raise
    return Machines(config=config, learners=learners, rollouts=rollouts)


def start_learners(config: RunConfig, probes: Sequence[Int32]) -> "LearnerGroup":
    """Start the learner ranks alone.

    Args:
        probes: token ids that every published version is tried on.

    Raises:
        AgileError: a rank did not start; whatever had is ended.
    """
    from learner.group import LearnerGroup
    from rollout.tokenizer import HFTokenizer

    tokenizer = HFTokenizer(config.model.path)
    return LearnerGroup(
        config.model.path,
        learner=config.learner,
        ppo=config.ppo,
        imitation=config.imitation,
        function_ids=[tokenizer.function_id(function) for function in Function],
        device=config.cluster.device,
        temperature=config.rollout.temperature,
        transport=config.rollout.transport,
        publish_dtype=config.rollout.dtype,
        probes=probes,
        seed=config.seed,
    )


def assemble(
    config: RunConfig, environment: Environment, machines: Machines, progress: Progress, stopping: Callable[[], bool]
) -> Parts:
    """Open the run's folder and put it together with what is up."""
    folder = config.run_folder
    learners, rollouts = machines.learners, machines.rollouts
    recorder = RunRecorder(folder, console=progress.line)

    def resumed(state: RunState) -> None:
        discarded = recorder.resume(state)
        if state.imitation_steps or discarded.lines:
            progress.say(
                f"resumed after {state.imitation_steps} imitation steps and {state.iteration} iterations; discarded "
                f"{discarded.rows} segments and {discarded.seconds:.0f} s of work that came after"
            )

    checkpoints = FolderCheckpoints(
        folder / "checkpoints",
        keep=config.run.keep_checkpoints,
        learners=learners,
        lanes=rollouts,
        resumed=resumed,
        sft=folder / SFT,
    )
    return Parts(
        config=config,
        environment=environment,
        rules=_rules(config, environment),
        learners=learners,
        rollouts=rollouts,
        checkpoints=checkpoints,
        recorder=recorder,
        progress=progress,
        stopping=stopping,
    )


def probes(environment: Environment, rules: Rules) -> list[Int32]:
    """Openings of sessions, as the agent would read them: what engines and learners must agree on."""
    questions = environment.stream(split="train", index=0).questions[:PROBES]
    texts = (rules.tokenizer.encode(question.shown) for question in questions)
    longest = rules.agent.session_tokens - 1
    return [np.array([rules.tokenizer.bos_id, *ids][:longest], dtype=np.int32) for ids in texts]


def _rules(config: RunConfig, environment: Environment) -> Rules:
    from rollout.rules import build_rules

    return build_rules(environment, env=config.env, agent=config.agent, memory=config.memory, model=config.model.path)
