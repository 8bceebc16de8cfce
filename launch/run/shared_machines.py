"""Trains the runs of a sweep in one process, on the same engines and learners.

Runs that agree in all that imitation depends on share one imitation. The first of them does it; the others start from
its SFT policy and from its critic, which was trained on what sessions earn at the price of the first. They share the
evaluation of the SFT policy as well if they agree in all that it depends on. Each knob says what it
affects (`Affects`).

The engines' random state continues from run to run, so what a run samples depends on the runs before it, not on its
seed alone.
"""

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from agile_ray.config import RunConfig
from agile_ray.effects import imitation_of, sft_evaluation_of
from agile_ray.errors import AgileError, ConfigError
from agile_ray.record import evaluations
from agile_ray.record.checkpoints import adopt
from agile_ray.record.folder import RunFolder, SweepFolder
from launch.cluster.ray_cluster import cluster
from launch.run import pipeline
from launch.run.assembly import Machines, start
from launch.run.finished import is_finished
from launch.run.lock import alone
from launch.run.pipeline import Stop


def train_all(configs: Sequence[RunConfig]) -> list[str]:
    """Train what is not finished, in order; the same call resumes.

    Returns:
        the runs that failed, each with its error.

    Raises:
        ConfigError: a run can't start. Every configuration is checked before anything is started; what shows only when
            the run's turn comes, such as a checkpoint of another version, ends the sweep there.
        SystemExit: SIGTERM came, and something is left to do; the current run made a checkpoint, or finished.
    """
    left = [config for config in configs if not is_finished(config)]
    for config in left:
        pipeline.prepare(config)
    if not left:
        return []
    failed: list[str] = []
    stop = Stop()
    first = SweepFolder(left[0].run.folder.absolute()).initial_learners
    with cluster(left[0].cluster, cpus=max(map(pipeline.cpus, left))), _Bench(first) as bench:
        stop.on(signal.SIGTERM)  # after Ray, which sets a handler of its own
        for config in left:
            print(f"{config.run.name}:", flush=True)
            try:
                _adopt(config, configs)
                bench.train(config, stop)
            except ConfigError:
                raise
            except AgileError as error:  # only this run is lost, but its machines may be broken
                failed.append(f"{config.run.name} ({type(error).__name__}: {error})")
                bench.clear()
            if stop() and not (config is left[-1] and is_finished(config)):
                raise SystemExit(128 + signal.SIGTERM)
    return failed


class _Bench:
    """Machines that outlive one run, with the state in which their learners started."""

    def __init__(self, first: Path) -> None:
        self._machines: Machines | None = None
        self._first = first

    def __enter__(self) -> "_Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        shutil.rmtree(self._first, ignore_errors=True)

    def clear(self) -> None:
        """End the machines; the next run starts its own."""
        if self._machines is not None:
            self._machines.close()
        self._machines = None

    def train(self, config: RunConfig, stop: Stop) -> None:
        """Train one run, on the machines that are up if they fit."""
        environment = pipeline.prepare(config)
        with alone(RunFolder.of(config)), pipeline.progress_of(config) as progress:
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


def _adopt(config: RunConfig, others: Sequence[RunConfig]) -> None:
    """Take over the imitation of a run that shares it, and its evaluation if they share that too.

    Donors are preferred in this order: those that share the evaluation, those with the same environment and price,
    the others.
    """
    run = RunFolder.of(config)
    if run.sft.path.exists() or run.checkpoints.exists():
        return
    alike = [other for other in others if imitation_of(other) == imitation_of(config)]
    donors = [other for other in alike if evaluations.has(RunFolder.of(other), "sft_sampled")]
    needed = sft_evaluation_of(config)
    donors.sort(key=lambda other: (sft_evaluation_of(other) != needed, other.env != config.env))
    for donor in donors[:1]:
        source = RunFolder.of(donor)
        adopt(source.sft.path, run.sft.path)
        if sft_evaluation_of(donor) == needed:
            adopt(source.evaluations, run.evaluations, only="sft*")
