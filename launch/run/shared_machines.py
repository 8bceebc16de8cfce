"""Trains the runs of a sweep in one process, on the same engines and learners.

Runs that imitate alike share one imitation (launch/run/adoption.py).

The engines' random state continues from run to run, so what a run samples depends on the runs before it, not on its
seed alone, unless `rollout.deterministic` is set.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from agile_ray.config import RunConfig
from agile_ray.errors import AgileError, ConfigError
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.tracking.programs import live
from agile_ray.record.tracking.tracker import open_programs, tracked
from launch.cluster.ray_cluster import cluster
from launch.run import pipeline
from launch.run.adoption import adopt, has_begun
from launch.run.assembly import Machines, start
from launch.run.finished import is_finished
from launch.run.lock import alone
from launch.run.stop import EXIT_CODE, Stop


def train_all(configs: Sequence[RunConfig], *, ignores: Sequence[str] = (), track: Sequence[str] = ()) -> list[str]:
    """Train the unfinished runs, in order; the same call resumes.

    Args:
        configs: of the runs.
        ignores: keys that imitation disregards.
        track: names of programs that are given the metrics meanwhile.

    Returns:
        the runs that failed, each with its error.

    Raises:
        ConfigError: a run can't start. Every configuration is checked before anything is started. An error that appears
            only when a run starts, such as a checkpoint of another version, ends the sweep there.
        SystemExit: SIGTERM came before all runs were finished; the current run wrote a checkpoint, finished, or was
            interrupted.
    """
    left = [config for config in configs if not is_finished(config)]
    for config in left:
        pipeline.prepare(config)
    if not left:
        return []
    open_programs(track, RunFolder.of(left[0]))  # an error here, not after hours
    failed: list[str] = []
    stop = Stop()
    first = SweepFolder(left[0].run.folder.absolute()).initial_learners
    with (
        stop.listening(),
        cluster(left[0].cluster, cpus=max(map(pipeline.cpus, left))),
        _SharedMachines(first) as shared,
        stop.working(),
    ):
        for config in left:
            print(f"{config.run.name}:", flush=True)
            try:
                if not has_begun(config):
                    adopt(config, configs, ignores)
                shared.train(config, stop, track)
            except ConfigError:
                raise
            except AgileError as error:  # only this run failed, but its machines may be broken
                failed.append(f"{config.run.name} ({type(error).__name__}: {error})")
                shared.clear()
            if stop() and not (config is left[-1] and _finished(config)):
                raise SystemExit(EXIT_CODE)
    return failed


def _finished(config: RunConfig) -> bool:
    return RunFolder.of(config).is_finished


class _SharedMachines:
    """Machines that outlive one run, with the state in which their learners started."""

    def __init__(self, first: Path) -> None:
        self._machines: Machines | None = None
        self._first = first

    def __enter__(self) -> "_SharedMachines":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        shutil.rmtree(self._first, ignore_errors=True)

    def clear(self) -> None:
        """End the machines; the next run starts its own."""
        if self._machines is not None:
            self._machines.close()
        self._machines = None

    def train(self, config: RunConfig, stop: Stop, track: Sequence[str]) -> None:
        """Train one run, on the running machines if they fit it."""
        environment = pipeline.prepare(config)
        folder = RunFolder.of(config)
        programs = {form: live(form, folder.tracking) for form in track}  # a server that is away stops no later run
        with (
            alone(folder),
            pipeline.progress_of(config) as progress,
            tracked(config, programs, say=progress.say, stopping=stop),
            stop.explained(folder, folder.sft, progress),
        ):
            if self._machines is not None and not self._machines.fit(config):
                self.clear()
            if self._machines is None:
                progress.say("starting engines and learners")
                self._machines = start(config, environment, progress)
                self._first.mkdir(parents=True, exist_ok=True)
                self._machines.learners.save(self._first)
            else:
                self._machines.reopen(config, progress)
                self._machines.learners.load(self._first)
            pipeline.run(config, environment, self._machines, progress, stop)
