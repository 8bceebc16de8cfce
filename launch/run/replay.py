"""A replay from start to end: trains on the stored sessions of a run, then compares."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from agile_ray import loop
from agile_ray.config import RunConfig
from agile_ray.credit.assign import CreditAssigner
from agile_ray.credit.fitted import check_windows
from agile_ray.errors import ConfigError
from agile_ray.record import provenance, store
from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import read_json
from agile_ray.record.resume import check_record
from agile_ray.record.roll_call import roll_call
from agile_ray.replay.rollouts import RecordedRollouts
from agile_ray.types import RunState
from launch.cluster.lost_ranks import surviving_lost_ranks
from launch.cluster.ray_cluster import cluster
from launch.cluster.room import reserve
from launch.report.replay_table import conclude, name_run
from launch.run import shipped_configs
from launch.run.assembly import open_record, restart_learners, start_learners
from launch.run.finished import check_resumable
from launch.run.interrupt import resumable
from launch.run.lock import alone
from launch.run.preflight import check
from launch.run.progress import Progress
from launch.run.stop import EXIT_CODE, Stop

if TYPE_CHECKING:
    from learner.group import LearnerGroup

_RECORD = TypeAdapter(dict[str, object]).validate_json


def replay(run: RunFolder, overrides: Sequence[str], *, name: str | None) -> None:
    """Train again on a run's stored sessions, then compare.

    Args:
        run: its folder, an absolute path.
        overrides: of its configuration, written key=value.
        name: of the replay's folder beside it; default: the run's name and `-replay`.

    Raises:
        ConfigError: it can't start, and nothing was started or written; or another version wrote a stored file.
        ContractError: without overrides, it did not repeat the run.
        LearnerError: ranks were lost too often, or a loss is not finite; the same command resumes.
        SystemExit: SIGTERM came, and iterations are left; the same command resumes.
    """
    config = configure(run, overrides, name=name or f"{run.name}-replay")
    folder = RunFolder.of(config)
    stop = Stop()
    ranks = config.learner.ranks
    progress = Progress(imitation_steps=0, iterations=config.loop.iterations)
    with (
        stop.listening(),
        alone(folder),
        progress,
        stop.explained(folder, run.sft, progress),
        resumable(folder, stopping=stop),
        cluster(config.cluster, cpus=ranks + 1),
        closing(reserve(config, engines=0, ranks=ranks)) as room,
    ):
        progress.say(f"replay of {run} in {folder}: starting learners")
        with roll_call(folder) as call:
            learners = start_learners(config, (), call, room)  # no engine serves weights: there is no sync to check
        with ExitStack() as ending:
            ending.callback(learners.shutdown)
            ending.enter_context(stop.working())
            state = surviving_lost_ranks(
                lambda: _train(run, config, learners, progress, stop),
                restart=lambda: restart_learners(learners, config, progress),
                run=folder,
                sft=run.sft,
                stopping=stop,
                say=progress.say,
            )
            stop.saved()
        recorded = run.segment_file(state.iteration + 1).is_file()
        if stop.asked and state.iteration < config.loop.iterations and recorded:
            progress.say(f"asked to stop: checkpoint after {state.iteration} iterations; the same command resumes")
            raise SystemExit(EXIT_CODE)
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
        "rollout.transport": "ray_shm",  # nccl would wait for engines
        "loop.evaluate_every": "null",
    }
    if not run.sft.adapter.exists():  # an adapter is trained on the weights that the run began with
        fixed["model.path"] = str(run.sft)
    taken = [override for override in overrides if override.partition("=")[0] in fixed]
    if taken:
        raise ConfigError(f"override {taken[0]}: a replay sets {', '.join(fixed)} itself; --output names its folder")
    config = shipped_configs.read(str(run.config), [*overrides, *(f"{key}={value}" for key, value in fixed.items())])
    if not run.sft.is_complete:
        raise ConfigError(
            f"{run.sft}: a replay begins after imitation and needs its last checkpoint, found none; train the run first"
        )
    lengths = store.table(run, 1).column("stream_length").to_pylist()
    check_windows(config, stream_length=max(lengths, default=0))
    for iteration in run.stored_iterations():
        store.count_segments(run, iteration)  # one that is cut off is an error here, not after hours
    _check_output(run, RunFolder.of(config))
    check(config)
    provenance.check_resumable(config)
    check_record(RunFolder.of(config), run.sft)
    check_resumable(config)
    return config


def _check_output(run: RunFolder, folder: RunFolder) -> None:
    """Refuse a folder with anything but a replay of this run, because resuming there would discard other work."""
    if not folder.path.exists():
        return
    record = read_json(folder.replay, _RECORD, expected="a replay's record") if folder.replay.is_file() else {}
    repeated = record.get("run")
    if repeated != str(run):
        found = "no replay" if repeated is None else f"a replay of {repeated}"
        raise ConfigError(f"{folder}: it must be free or a replay of {run}, found {found}; choose another --output")


def _train(
    run: RunFolder, config: RunConfig, learners: "LearnerGroup", progress: Progress, stopping: Callable[[], bool]
) -> RunState:
    name_run(run, RunFolder.of(config))
    provenance.write(config)
    rollouts, credit = RecordedRollouts(run), CreditAssigner(config.credit)
    record = open_record(
        config,
        learners=learners,
        lanes=rollouts,
        credit=credit,
        sft=run.sft,
        progress=progress,
        fleet=learners.counts,
    )
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
