"""A training from start to end, in a folder that can be resumed.

sessions of a teacher -> imitation -> SFT policy, frozen as the reference -> evaluate it
                                        |
                                        v
           lanes begin at different places of their streams (agile_ray/scripted/head_start.py)
                                        |
                                        v
           collect -> cut -> score -> credit -> learn -> publish   (agile_ray/loop.py)
                                        |
                                        v
           best on validation -> evaluate it -> compare with the reference policies -> report
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import envs
from agile_ray import loop
from agile_ray.agent.environment import Environment, taught_split
from agile_ray.config import RunConfig
from agile_ray.credit.fitted import check_windows
from agile_ray.record import evaluations, provenance
from agile_ray.record.folder import RunFolder
from agile_ray.record.resume import check_record
from agile_ray.record.tracking.tracker import open_programs, tracked
from agile_ray.scripted import demonstrations
from agile_ray.scripted.demonstration_file import sessions_of
from agile_ray.scripted.head_start import AskingShares, are_spread
from agile_ray.types import RunState
from launch.cluster.lost_ranks import surviving_lost_ranks
from launch.cluster.ray_cluster import cluster
from launch.report.skipped import print_skipped
from launch.run import final_comparison
from launch.run.assembly import Machines, Parts, assemble, rules_of, start
from launch.run.finished import check_resumable, describe, is_finished
from launch.run.interrupt import resumable
from launch.run.lock import alone
from launch.run.preflight import check, check_engine_path, check_engines, check_experts, check_gpus
from launch.run.progress import Progress
from launch.run.stop import EXIT_CODE, Stop
from rollout.rules import check_embedder


def train(config: RunConfig, *, track: Sequence[str] = ()) -> None:
    """Run a training until it ends or is asked to stop.

    Args:
        config: of the run.
        track: names of programs that are given its metrics meanwhile (agile_ray/record/tracking/).

    Raises:
        ConfigError: the training can't start; nothing was started or written.
        SystemExit: SIGTERM came, and the run is not finished.
    """
    if is_finished(config):
        check_resumable(config)
        print(describe(config))
        return
    environment = prepare(config)
    stop, folder = Stop(), RunFolder.of(config)
    programs = open_programs(track, folder)
    with (
        stop.listening(),
        alone(folder),
        progress_of(config) as progress,
        tracked(config, programs, say=progress.say, stopping=stop),
        stop.explained(folder, folder.sft, progress),
        resumable(folder, stopping=stop),
        cluster(config.cluster, cpus=cpus(config)),
    ):
        progress.say(f"run {folder}: starting engines and learners")
        with closing(start(config, environment, progress)) as machines, stop.working():
            finished = run(config, environment, machines, progress, stop)
            stop.saved()
    if not finished:
        raise SystemExit(EXIT_CODE)


def prepare(config: RunConfig) -> Environment:
    """Check a run before anything starts, and build its environment.

    Raises:
        ConfigError: the run can't start; nothing was written.
    """
    check_resumable(config)
    run = RunFolder.of(config)
    check_record(run, run.sft)
    environment = envs.build(config.env, seed=config.seed)  # before the model, whose errors name the environment
    for split in dict.fromkeys((taught_split(environment), "train", "validation", final_comparison.SPLIT)):
        lengths = [  # broken files are an error here, not after hours
            len(environment.stream(split=split, index=index).questions)
            for index in range(environment.streams(split) or 1)
        ]
        if split == "train":
            check_windows(config, stream_length=max(lengths))
    print_skipped(environment)
    check(config)
    final_comparison.check_advice(config, environment)
    check_engines(config)
    check_gpus(config)
    check_experts(config.env.expert)
    check_embedder(config.memory.embedder)
    check_engine_path("model.path", config.model.path)
    if config.imitation.demonstrations is not None and not run.sft.path.exists():
        _check_demonstrations(config, environment)
    return environment


def _check_demonstrations(config: RunConfig, environment: Environment) -> None:
    """Play the file of demonstrations once, so that wrong lines end the run before engines start.

    Raises:
        ConfigError: the file can't be read, or lines of it can't be played.
    """
    demonstrations.lessons(
        config.imitation,
        environment,
        rules_of(config, environment),
        seed=config.seed,
        progress=lambda _: None,
        skip_bad=config.env.skip_bad,
    )


def progress_of(config: RunConfig) -> Progress:
    """The progress display of a run."""
    steps = -(-(sessions_of(config.imitation) + config.imitation.search_rows) // config.imitation.batch)
    return Progress(imitation_steps=steps, iterations=config.loop.iterations, run=RunFolder.of(config))


def cpus(config: RunConfig) -> int:
    """Logical CPUs that a run's actors and its driver need."""
    return config.learner.ranks + 2 * config.rollout.actors + 2


def run(
    config: RunConfig, environment: Environment, machines: Machines, progress: Progress, stopping: Callable[[], bool]
) -> bool:
    """Train on running machines, in a folder that can be resumed; if a learner rank is lost, resume with fresh ones.

    Returns:
        Whether the run is finished; if not, it was asked to stop, and has a checkpoint.

    Raises:
        LearnerError: ranks were lost too often, or a loss is not finite.
    """
    folder = RunFolder.of(config)
    folder.report.unlink(missing_ok=True)  # a finished run that is extended is not finished
    provenance.write(config)

    def work() -> bool:
        parts = assemble(config, environment, machines, progress, stopping)
        with closing(parts.recorder):
            return _run(parts)

    with resumable(folder, stopping=stopping):
        return surviving_lost_ranks(
            work,
            restart=lambda: machines.restart_learners(config, progress),
            run=folder,
            sft=folder.sft,
            stopping=stopping,
            say=progress.say,
        )


def _run(parts: Parts) -> bool:
    state = parts.checkpoints.restore()
    if not parts.sft.exists():
        state = _imitate(parts, state)
    if parts.stopping():
        _say_stopped(parts, state)
        return False
    parts.learners.set_reference(parts.sft)
    if state.iteration == 0:
        _evaluate_sft(parts, state)
        _spread_lanes(parts)
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
        _say_stopped(parts, state)
        return False
    final_comparison.compare(parts, state)
    return True


def _imitate(parts: Parts, state: RunState) -> RunState:
    imitation = parts.config.imitation
    parts.progress.say(_source(parts.config))
    with parts.recorder.timed("teach"), parts.progress.bar("teacher", sessions_of(imitation)) as played:
        lessons = demonstrations.lessons(
            imitation,
            parts.environment,
            parts.rules,
            seed=parts.config.seed,
            progress=played,
            skip_bad=parts.config.env.skip_bad,
        )
    batches = lessons.batches
    if lessons.left_out:
        parts.progress.say(f"sessions that are not learned: {_counted(lessons.left_out)}")
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


def _evaluate_sft(parts: Parts, state: RunState) -> None:
    """Make the evaluations of the SFT policy that the run needs and does not have."""
    needed = final_comparison.tests("sft", parts.config, state)
    if _lanes_are_spread(parts):
        needed.append(final_comparison.starting(parts.config, state))
    missing = [one for one in needed if final_comparison.is_missing(parts.folder, one)]
    if missing:
        parts.rollouts.load(parts.learners.publish(state.version))
    for one in missing:
        final_comparison.play(parts, one)


def _spread_lanes(parts: Parts) -> None:
    if not _lanes_are_spread(parts):
        return
    parts.progress.say("lanes begin at different places of their streams: growing their memories")
    with parts.recorder.timed("spread"):
        parts.rollouts.spread(AskingShares.of(evaluations.read(parts.folder, evaluations.STARTING)))


def _lanes_are_spread(parts: Parts) -> bool:
    loop_ = parts.config.loop
    return loop_.iterations > 0 and are_spread(parts.environment, lanes=loop_.lanes, sessions=loop_.sessions_per_lane)


def _source(config: RunConfig) -> str:
    """Whose sessions are imitated, in words."""
    imitation = config.imitation
    if imitation.demonstrations is not None:
        return f"the sessions of {imitation.demonstrations} are played"
    if not imitation.played:
        return f"no sessions are imitated: PPO starts from {config.model.path}"
    asking = (
        "by judgement, where neither memory nor tool helps and a guess loses more than advice costs"
        if imitation.asking == "judgement"
        else f"with probability {imitation.asked_share:g} in every session"
    )
    return f"the teacher plays {imitation.played} sessions, asking {asking}"


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _say_stopped(parts: Parts, state: RunState) -> None:
    parts.progress.say(
        f"asked to stop: checkpoint after {state.imitation_steps} imitation steps and {state.iteration} iterations; "
        "run the same command again to resume"
    )
