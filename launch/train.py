"""`agile-ray train`: imitation, then PPO, then the final comparison, in a folder that can be resumed.

teacher's sessions -> imitate -> SFT policy, frozen as reference -> evaluate it
                                  |
                                  v
             collect -> cut -> score -> credit -> learn -> publish   (agile_ray/loop.py)
                                  |
                                  v
             best on validation -> evaluate it -> compare with the reference policies -> report
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

import envs
from agile_ray import loop, provenance
from agile_ray.config import RunConfig
from agile_ray.protocols import RunState
from agile_ray.task import Environment
from envs.references import Habits, reference
from launch import configs, finish, report, teach
from launch.cluster import cluster
from launch.files import alone
from launch.parts import Machines, Parts, assemble, start
from launch.preflight import check
from launch.progress import Progress


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a shipped config, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as env.advice_cost=0.5.")
    ] = None,
) -> None:
    """Train an agent: imitation, PPO, evaluation, report.

    The same command with the same run.name resumes from the last whole checkpoint; SIGTERM makes one first.

    Example: agile-ray train quickstart env.advice_cost=0.5 run.name=dear
    """
    train(configs.read(config, overrides or ()))


@dataclass(slots=True)
class Stop:
    """Becomes true when the process is asked to end."""

    asked: bool = False

    def __call__(self) -> bool:
        return self.asked

    def on(self, number: signal.Signals) -> None:
        """Listen to a signal from now on."""
        signal.signal(number, lambda *_: setattr(self, "asked", True))


def train(config: RunConfig) -> None:
    """Run a training to its end, or to where it is told to stop.

    Raises:
        ConfigError: it can't start; nothing was started or written.
    """
    environment = prepare(config)
    stop = Stop()
    with alone(config.run_folder), progress_of(config) as progress, cluster(config.cluster, cpus=cpus(config)):
        stop.on(signal.SIGTERM)  # after Ray, which sets a handler of its own
        progress.say(f"run {config.run_folder}: starting engines and learners")
        machines = start(config, environment, progress)
        try:
            run(config, environment, machines, progress, stop)
        finally:
            machines.close()


def prepare(config: RunConfig) -> Environment:
    """Find out all that can be wrong with a run before anything is started.

    Raises:
        ConfigError: it can't start; nothing was written.
    """
    check(config)
    provenance.check_resumable(config)
    environment = envs.build(config.env, seed=config.seed)
    for split in ("train", "validation", finish.SPLIT):
        environment.stream(split=split, index=0)  # a category that is not there is an error now, not after hours
    return environment


def progress_of(config: RunConfig) -> Progress:
    """What a person sees of a run."""
    steps = -(-config.imitation.sessions // config.imitation.batch)
    return Progress(imitation_steps=steps, iterations=config.loop.iterations)


def cpus(config: RunConfig) -> int:
    """Logical CPUs that a run's actors and its driver take."""
    return config.learner.ranks + 2 * config.rollout.actors + 2


def run(
    config: RunConfig, environment: Environment, machines: Machines, progress: Progress, stopping: Callable[[], bool]
) -> None:
    """Train on machines that are up, in a folder that can be resumed."""
    provenance.write(config.run_folder, config)
    parts = assemble(config, environment, machines, progress, stopping)
    try:
        _run(parts)
    finally:
        parts.recorder.close()


def _run(parts: Parts) -> None:
    state = parts.checkpoints.restore()
    if not parts.sft.exists():
        state = _imitate(parts, state)
    if parts.stopping():
        return _stopped(parts, state)
    parts.learners.set_reference(parts.sft)
    if state.iteration == 0 and not report.has(parts.folder, "sft_sampled"):
        parts.rollouts.load(parts.learners.publish(state.version))
        finish.evaluate_policy("sft", parts, state)
    state = loop.train(
        parts.config,
        state,
        rollouts=parts.rollouts,
        learners=parts.learners,
        checkpoints=parts.checkpoints,
        recorder=parts.recorder,
        stopping=parts.stopping,
        past=parts.past(state),
    )
    if parts.stopping():
        return _stopped(parts, state)
    return finish.compare(parts, state)


def _imitate(parts: Parts, state: RunState) -> RunState:
    imitation = parts.config.imitation
    habits = Habits(seed=parts.config.seed, asked_share=imitation.asked_share, asking=imitation.asking)
    teacher = reference("teacher", parts.environment, habits)
    parts.progress.say(f"the teacher plays {imitation.sessions} sessions, asking by {_habit(parts.config)}")
    with parts.recorder.timed("teach"), parts.progress.bar("teacher", imitation.sessions) as played:
        batches = teach.batches(
            imitation,
            parts.environment,
            parts.rules,
            teacher,
            seed=parts.config.seed,
            discount=parts.config.ppo.discount,
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
        return "its judgement of today"
    return f"chance ({config.imitation.asked_share:g}) where neither memory nor tool helps"


def _stopped(parts: Parts, state: RunState) -> None:
    parts.progress.say(
        f"asked to stop: checkpoint after {state.imitation_steps} imitation steps and {state.iteration} iterations; "
        "the same command resumes"
    )
