"""Builds what a run is made of from its configuration: the only place that knows every class."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agile_ray.checkpoints import FolderCheckpoints
from agile_ray.config import RunConfig
from agile_ray.lane import Rules
from agile_ray.protocols import RunState
from agile_ray.record import RunRecorder
from agile_ray.task import Environment
from agile_ray.types import Int32
from launch.progress import Progress

if TYPE_CHECKING:
    from learner.group import LearnerGroup
    from rollout.pool import RolloutPool

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
        return self.folder / "sft"

    def close(self) -> None:
        """End what was started, in the order that leaves nothing waiting."""
        self.recorder.close()
        self.rollouts.shutdown()
        self.learners.shutdown()


def assemble(config: RunConfig, environment: Environment, progress: Progress, stopping: Callable[[], bool]) -> Parts:
    """Start engines and learners and open the run's folder.

    Raises:
        AgileError: something did not start; whatever had is ended.
    """
    from learner.group import LearnerGroup
    from rollout.pool import RolloutPool
    from rollout.rules import build_rules

    folder = config.run_folder
    rules = build_rules(config, environment, model=config.model.path)
    rollouts = RolloutPool(config, model=config.model.path, logs=folder / "logs", bar=progress.bar)
    try:
        learners = LearnerGroup(
            config.model.path,
            learner=config.learner,
            ppo=config.ppo,
            imitation=config.imitation,
            device=config.cluster.device,
            temperature=config.rollout.temperature,
            transport=config.rollout.transport,
            publish_dtype=config.rollout.dtype,
            probes=probes(environment, rules),
            seed=config.seed,
        )
        rollouts.wait_until_ready()  # engines and learners start side by side
    except BaseException:
        rollouts.shutdown()
        raise
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
    )
    return Parts(
        config=config,
        environment=environment,
        rules=rules,
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
