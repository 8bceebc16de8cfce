"""Trains the runs of a sweep in one process: engines and learners start once, and runs that imitate alike share it.

Imitation hangs neither on credit nor, but for the critic's discount and rate, on PPO, and on the price only where the
teacher judges by it. Of the runs that agree in what it does hang on, the first pays for it; the others begin with its
policy, and with its critic, which has seen what sessions earn at the first one's price.

Engines that outlive a run go on with their random numbers: what a run samples hangs on the runs before it, and its seed
does not fix it.
"""

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from agile_ray.config import RunConfig
from agile_ray.errors import AgileError, ConfigError
from agile_ray.record import evaluations
from agile_ray.record.checkpoints import adopt
from agile_ray.record.folder import RunFolder, SweepFolder
from launch.cluster.ray_cluster import cluster
from launch.run import pipeline
from launch.run.assembly import Machines, start
from launch.run.lock import alone
from launch.run.pipeline import Stop

SEEN = ("seed", "model", "env", "agent", "memory", "imitation", "learner")
"""Sections that imitation looks at, but for the keys below."""
UNSEEN = ("env.split", "learner.deadline_s")
PRICE = "env.advice_cost"
"""Seen by the teacher that asks by judgement, and by no other."""
PPO_SEEN = ("discount", "critic_learning_rate")


def train_all(configs: Sequence[RunConfig]) -> list[str]:
    """Train what is not finished, in order; the same call resumes.

    Returns:
        the runs that failed, each with its error.

    Raises:
        ConfigError: a run can't start. All that can be known before is found before anything is started; what only a
            run's turn shows, such as a checkpoint of another version, ends the sweep there.
        SystemExit: SIGTERM came, and something is left to do; the run that was on made a checkpoint, or finished.
    """
    left = [config for config in configs if not _finished(config)]
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
            except AgileError as error:  # one run is lost, not the others; what it ran on may be broken
                failed.append(f"{config.run.name} ({type(error).__name__}: {error})")
                bench.clear()
            if stop() and not (config is left[-1] and _finished(config)):
                raise SystemExit(128 + signal.SIGTERM)
    return failed


def _finished(config: RunConfig) -> bool:
    return RunFolder.of(config).is_finished


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
    """Take over the imitation of a run that imitated alike, if there is one."""
    run = RunFolder.of(config)
    if run.sft.path.exists() or run.checkpoints.exists():
        return
    alike = [other for other in others if imitation_of(other) == imitation_of(config)]
    donors = [other for other in alike if evaluations.has(RunFolder.of(other), "sft_sampled")]
    for donor in sorted(donors, key=lambda other: other.env != config.env)[:1]:  # best one at the same price
        source = RunFolder.of(donor)
        adopt(source.sft.path, run.sft.path)
        if donor.env == config.env:  # then what its evaluation says of the policy after imitation holds here too
            adopt(source.evaluations, run.evaluations, only="sft*")


def imitation_of(config: RunConfig) -> dict[str, object]:
    """All of a configuration that imitation hangs on."""
    sections = config.model_dump(mode="json")
    seen = {name: sections[name] for name in SEEN} | {name: sections["ppo"][name] for name in PPO_SEEN}
    judged = config.imitation.asking == "judgement"
    for key in UNSEEN if judged else (*UNSEEN, PRICE):
        section, _, name = key.partition(".")
        seen[section] = {key: value for key, value in seen[section].items() if key != name}
    return seen
