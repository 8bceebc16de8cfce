"""A replay from start to end: trains on the stored sessions of a run, then compares."""

import json
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agile_ray import loop
from agile_ray.config import RunConfig
from agile_ray.credit.assign import CreditAssigner
from agile_ray.errors import ConfigError
from agile_ray.record import provenance, store
from agile_ray.record.folder import RunFolder
from agile_ray.replay.rollouts import RecordedRollouts
from agile_ray.types import RunState
from launch.cluster.ray_cluster import cluster
from launch.report.replay_table import conclude, name_run
from launch.run import shipped_configs
from launch.run.assembly import open_record, start_learners
from launch.run.finished import check_resumable
from launch.run.interrupt import resumable
from launch.run.lock import alone
from launch.run.pipeline import Stop
from launch.run.preflight import check
from launch.run.progress import Progress

if TYPE_CHECKING:
    from learner.group import LearnerGroup


def replay(run: RunFolder, overrides: Sequence[str], *, name: str | None) -> None:
    """Train again on a run's stored sessions, then compare.

    Args:
        run: its folder, an absolute path.
        overrides: of its configuration, written key=value.
        name: of the replay's folder beside it; default: the run's name and `-replay`.

    Raises:
        ConfigError: it can't start, and nothing was started or written; or, later, a stored file is another version's.
        ContractError: without overrides, it did not repeat the run.
        LearnerError: a rank died, or a loss is not finite; the same command resumes.
        DeadlineError: a rank was late; the same command resumes.
    """
    config = configure(run, overrides, name=name or f"{run.name}-replay")
    folder = RunFolder.of(config)
    stop = Stop()
    ranks = config.learner.ranks
    progress = Progress(imitation_steps=0, iterations=config.loop.iterations)
    with alone(folder), progress, resumable(folder), cluster(config.cluster, cpus=ranks + 1):
        stop.on(signal.SIGTERM)  # after Ray, which sets a handler of its own
        progress.say(f"replay of {run} in {folder}: starting learners")
        learners = start_learners(config, probes=())  # no engine serves the weights, so there is no sync to check
        try:
            state = _train(run, config, learners, progress, stop)
        finally:
            learners.shutdown()
        if stop.asked:
            return progress.say(
                f"asked to stop: checkpoint after {state.iteration} iterations; the same command resumes"
            )
        if state.iteration < config.loop.iterations:
            progress.say(
                f"{run.segments} has no iteration {state.iteration + 1} of {config.loop.iterations}: "
                f"the replay ends after {state.iteration}"
            )
    return conclude(run, folder, overrides)


def configure(run: RunFolder, overrides: Sequence[str], *, name: str) -> RunConfig:
    """The run's configuration as its replay needs it, fully checked.

    Raises:
        ConfigError: names what is wrong; nothing was written.
    """
    if not run.config.is_file():
        raise ConfigError(f"{run}: a run's folder holds {run.config.name}, found none")
    fixed = {
        "run.name": name,
        "run.folder": str(run.path.parent),
        "model.path": str(run.sft),
        "rollout.transport": "ray_shm",  # nccl would wait for engines
        "loop.evaluate_every": "null",
    }
    taken = [override for override in overrides if override.partition("=")[0] in fixed]
    if taken:
        raise ConfigError(f"override {taken[0]}: a replay sets {', '.join(fixed)} itself; --output names its folder")
    config = shipped_configs.read(str(run.config), [*overrides, *(f"{key}={value}" for key, value in fixed.items())])
    if not run.sft.is_complete:
        raise ConfigError(
            f"{run.sft}: a replay begins after imitation and needs its last checkpoint, found none; train the run first"
        )
    store.table(run, 1)
    _check_output(run, RunFolder.of(config))
    check(config)
    check_resumable(config)
    return config


def _check_output(run: RunFolder, folder: RunFolder) -> None:
    """Refuse a folder that holds anything but a replay of this run, because resuming there would discard work."""
    if not folder.path.exists():
        return
    repeated = json.loads(folder.replay.read_text())["run"] if folder.replay.is_file() else None
    if repeated != str(run):
        found = "no replay" if repeated is None else f"a replay of {repeated}"
        raise ConfigError(f"{folder}: it must be free or a replay of {run}, found {found}; choose another --output")


def _train(
    run: RunFolder, config: RunConfig, learners: "LearnerGroup", progress: Progress, stopping: Callable[[], bool]
) -> RunState:
    name_run(run, RunFolder.of(config))
    provenance.write(config)
    rollouts, credit = RecordedRollouts(run), CreditAssigner(config.credit)
    record = open_record(config, learners=learners, lanes=rollouts, credit=credit, sft=run.sft, progress=progress)
    try:
        state = record.checkpoints.restore()
        learners.set_reference(run.sft.path)
        return loop.train(
            config,
            state,
            rollouts=rollouts,
            learners=learners,
            credit=credit,
            checkpoints=record.checkpoints,
            recorder=record.recorder,
            stopping=lambda: stopping() or rollouts.exhausted,
        )
    finally:
        record.recorder.close()
