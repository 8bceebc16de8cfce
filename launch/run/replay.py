"""A replay from start to end: trains on stored sessions, then compares."""

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agile_ray import loop
from agile_ray.config import RunConfig
from agile_ray.credit.assign import CreditAssigner
from agile_ray.errors import ConfigError
from agile_ray.record import provenance, store
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.folder import write_text
from agile_ray.record.recorder import SEGMENTS, RunRecorder
from agile_ray.replay.rollouts import RecordedRollouts
from agile_ray.types import RunState
from launch.cluster.ray_cluster import cluster
from launch.report.replay_table import RECORD, conclude
from launch.run import shipped_configs
from launch.run.assembly import SFT, start_learners
from launch.run.lock import alone
from launch.run.pipeline import Stop
from launch.run.preflight import check
from launch.run.progress import Progress

if TYPE_CHECKING:
    from learner.group import LearnerGroup


def replay(run: Path, overrides: Sequence[str], *, name: str | None) -> None:
    """Train again on a run's stored sessions, then compare.

    Args:
        run: its folder, absolute.
        name: of the replay's folder beside it; default: the run's and `-replay`.

    Raises:
        ConfigError: it can't start, and nothing was started or written; or, later, a stored file is another version's.
        ContractError: without overrides, it did not repeat the run.
        LearnerError: a rank died, or a loss is not finite; the same command resumes.
        DeadlineError: a rank was late; the same command resumes.
    """
    config = configure(run, overrides, name=name or f"{run.name}-replay")
    stop = Stop()
    ranks = config.learner.ranks
    progress = Progress(imitation_steps=0, iterations=config.loop.iterations)
    with alone(config.run_folder), progress, cluster(config.cluster, cpus=ranks + 1):
        stop.on(signal.SIGTERM)  # after Ray, which sets a handler of its own
        progress.say(f"replay of {run} in {config.run_folder}: starting learners")
        learners = start_learners(config, probes=())  # what no engine serves needs no check
        try:
            state = _train(run, config, learners, progress, stop)
        finally:
            learners.shutdown()
        if stop.asked:
            return progress.say(
                f"asked to stop: checkpoint after {state.iteration} iterations; the same command goes on"
            )
        if state.iteration < config.loop.iterations:
            progress.say(
                f"{run / SEGMENTS} has no iteration {state.iteration + 1} of {config.loop.iterations}: "
                f"the replay ends after {state.iteration}"
            )
    return conclude(run, config.run_folder, overrides)


def configure(run: Path, overrides: Sequence[str], *, name: str) -> RunConfig:
    """The run's configuration as its replay needs it, with everything checked that can be wrong.

    Raises:
        ConfigError: names it; nothing was written.
    """
    if not (run / provenance.CONFIG_FILE).is_file():
        raise ConfigError(f"{run}: a run's folder holds {provenance.CONFIG_FILE}, found none")
    fixed = {
        "run.name": name,
        "run.folder": str(run.parent),
        "model.path": str(run / SFT),
        "rollout.transport": "ray_shm",  # nccl would wait for engines
        "loop.evaluate_every": "null",
    }
    taken = [override for override in overrides if override.partition("=")[0] in fixed]
    if taken:
        raise ConfigError(f"override {taken[0]}: a replay sets {', '.join(fixed)} itself; --output names its folder")
    config = shipped_configs.read(
        str(run / provenance.CONFIG_FILE), [*overrides, *(f"{key}={value}" for key, value in fixed.items())]
    )
    if not (run / SFT / "resume" / "state.json").is_file():
        raise ConfigError(
            f"{run / SFT}: a replay begins after imitation, whose state is not there; train the run first"
        )
    store.table(run / SEGMENTS, 1)
    _check_output(run, config.run_folder)
    check(config)
    provenance.check_resumable(config)
    return config


def _check_output(run: Path, folder: Path) -> None:
    """Refuse a folder that is not this run's replay: resuming drops what lies behind a checkpoint."""
    if not folder.exists():
        return
    record = folder / RECORD
    of = json.loads(record.read_text())["run"] if record.is_file() else None
    if of != str(run):
        found = "no replay" if of is None else f"a replay of {of}"
        raise ConfigError(f"{folder}: it must be free or a replay of {run}, found {found}; choose another --output")


def _train(
    run: Path, config: RunConfig, learners: "LearnerGroup", progress: Progress, stopping: Callable[[], bool]
) -> RunState:
    folder = config.run_folder
    write_text(folder / RECORD, json.dumps({"run": str(run)}) + "\n")
    provenance.write(folder, config)
    recorder = RunRecorder(folder, console=progress.line)
    rollouts = RecordedRollouts(run / SEGMENTS)
    credit = CreditAssigner(config.credit)

    def resumed(state: RunState) -> None:
        discarded = recorder.resume(state)
        if state.iteration:
            progress.say(f"resumed after {state.iteration} iterations; discarded {discarded.rows} segments")

    checkpoints = FolderCheckpoints(
        folder / "checkpoints",
        keep=config.run.keep_checkpoints,
        learners=learners,
        lanes=rollouts,
        credit=credit,
        resumed=resumed,
        sft=run / SFT,
    )
    try:
        state = checkpoints.restore()
        learners.set_reference(run / SFT)
        return loop.train(
            config,
            state,
            rollouts=rollouts,
            learners=learners,
            credit=credit,
            checkpoints=checkpoints,
            recorder=recorder,
            stopping=lambda: stopping() or rollouts.exhausted,
        )
    finally:
        recorder.close()
