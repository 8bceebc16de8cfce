"""A training from start to end, in a folder that can be resumed.

teacher's sessions -> imitation -> SFT policy, frozen as the reference -> evaluate it
                                        |
                                        v
           collect -> cut -> score -> credit -> learn -> publish   (agile_ray/loop.py)
                                        |
                                        v
           best on validation -> evaluate it -> compare with the reference policies -> report
"""

import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import envs
from agile_ray import loop
from agile_ray.agent.environment import Environment
from agile_ray.config import RunConfig
from agile_ray.record import evaluations, provenance
from agile_ray.record.folder import RunFolder
from agile_ray.scripted import demonstrations
from agile_ray.scripted.references import Habits, reference
from agile_ray.types import RunState
from launch.cluster.ray_cluster import cluster
from launch.run import final_comparison
from launch.run.assembly import Machines, Parts, assemble, start
from launch.run.finished import check_resumable, describe, is_finished
from launch.run.interrupt import resumable
from launch.run.lock import alone
from launch.run.preflight import check, check_engine_path
from launch.run.progress import Progress


@dataclass(slots=True)
class Stop:
    """Whether the process was asked to stop."""

    asked: bool = False

    def __call__(self) -> bool:
        return self.asked

    def on(self, number: signal.Signals) -> None:
        """Handle a signal as a request to stop."""
        signal.signal(number, lambda *_: setattr(self, "asked", True))


def train(config: RunConfig) -> None:
    """Run a training until it ends or is asked to stop.

    Raises:
        ConfigError: the training can't start; nothing was started or written.
    """
    if is_finished(config):
        check_resumable(config)
        return print(describe(config))
    environment = prepare(config)
    stop = Stop()
    folder = RunFolder.of(config)
    with (
        alone(folder),
        progress_of(config) as progress,
        resumable(folder),
        cluster(config.cluster, cpus=cpus(config)),
    ):
        stop.on(signal.SIGTERM)  # after Ray, which sets a handler of its own
        progress.say(f"run {folder}: starting engines and learners")
        machines = start(config, environment, progress)
        try:
            run(config, environment, machines, progress, stop)
        finally:
            machines.close()


def prepare(config: RunConfig) -> Environment:
    """Check a run before anything starts, and build its environment.

    Raises:
        ConfigError: the run can't start; nothing was written.
    """
    check_resumable(config)
    environment = envs.build(config.env, seed=config.seed)  # before the model, whose errors name the environment
    for split in ("train", "validation", final_comparison.SPLIT):
        environment.stream(split=split, index=0)  # a missing category is an error here, not after hours
    check(config)
    check_engine_path("model.path", config.model.path)
    return environment


def progress_of(config: RunConfig) -> Progress:
    """The progress display of a run."""
    steps = -(-config.imitation.sessions // config.imitation.batch)
    return Progress(imitation_steps=steps, iterations=config.loop.iterations)


def cpus(config: RunConfig) -> int:
    """Logical CPUs that a run's actors and its driver need."""
    return config.learner.ranks + 2 * config.rollout.actors + 2


def run(
    config: RunConfig, environment: Environment, machines: Machines, progress: Progress, stopping: Callable[[], bool]
) -> None:
    """Train on machines that are up, in a folder that can be resumed."""
    RunFolder.of(config).report.unlink(missing_ok=True)  # a finished run that is extended is not finished
    provenance.write(config)
    parts = assemble(config, environment, machines, progress, stopping)
    with resumable(RunFolder.of(config)), closing(parts.recorder):
        _run(parts)


def _run(parts: Parts) -> None:
    state = parts.checkpoints.restore()
    if not parts.sft.exists():
        state = _imitate(parts, state)
    if parts.stopping():
        return _stopped(parts, state)
    parts.learners.set_reference(parts.sft)
    if state.iteration == 0 and not evaluations.has(parts.folder, "sft_sampled"):
        parts.rollouts.load(parts.learners.publish(state.version))
        final_comparison.evaluate_policy("sft", parts, state)
    state = loop.train(
        parts.config,
        state,
        rollouts=parts.rollouts,
        learners=parts.learners,
        credit=parts.credit,
        checkpoints=parts.checkpoints,
        recorder=parts.recorder,
        stopping=parts.stopping,
    )
    if parts.stopping():
        return _stopped(parts, state)
    return final_comparison.compare(parts, state)


def _imitate(parts: Parts, state: RunState) -> RunState:
    imitation = parts.config.imitation
    habits = Habits(seed=parts.config.seed, asked_share=imitation.asked_share, asking=imitation.asking)
    teacher = reference("teacher", parts.environment, habits)
    parts.progress.say(f"the teacher plays {imitation.sessions} sessions, asking {_habit(parts.config)}")
    with parts.recorder.timed("teach"), parts.progress.bar("teacher", imitation.sessions) as played:
        batches = demonstrations.batches(
            imitation,
            parts.environment,
            parts.rules,
            teacher,
            seed=parts.config.seed,
            price=parts.config.env.price,
            progress=played,
        )
    with parts.progress.bar("imitation", len(batches)) as learned:
        state = loop.imitate(
            parts.config,
            state,
            batches,
            learners=parts.learners,
            checkpoints=parts.checkpoints,
            recorder=parts.recorder,
            stopping=parts.stopping,
            progress=learned,
        )
    if state.imitation_steps == len(batches):
        parts.checkpoints.keep_sft(state)
    return state


def _habit(config: RunConfig) -> str:
    if config.imitation.asking == "judgement":
        return "by judgement, where a guess loses more than advice costs"
    return f"with probability {config.imitation.asked_share:g} where neither memory nor tool has the answer"


def _stopped(parts: Parts, state: RunState) -> None:
    parts.progress.say(
        f"asked to stop: checkpoint after {state.imitation_steps} imitation steps and {state.iteration} iterations; "
        "run the same command again to resume"
    )
