"""Trains the runs of a sweep in one process: engines and learners start once, and runs that imitate alike share it.

Imitation does not hang on credit, on PPO or, but for what its critic has seen, on the price: of the runs that agree in
everything else the first pays for it, at its own price, and the others begin with its policy.
"""

import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agile_ray.checkpoints import adopt
from agile_ray.config import RunConfig
from agile_ray.errors import AgileError, ConfigError
from launch import report, train
from launch.cluster import cluster
from launch.parts import SFT, Machines, start
from launch.train import Stop

SEEN = ("seed", "model", "env", "agent", "memory", "imitation", "learner")
"""Sections that imitation looks at, but for the keys below."""
UNSEEN = ("env.advice_cost", "env.split", "learner.deadline_s")
PPO_SEEN = ("discount", "critic_learning_rate")


def train_all(configs: Sequence[RunConfig]) -> list[str]:
    """Train what is not finished, in order; the same call resumes.

    Returns:
        the runs that failed, each with its error.

    Raises:
        ConfigError: a run can't start; nothing was started.
        SystemExit: SIGTERM came; the run that was on made a checkpoint.
    """
    left = [config for config in configs if not (config.run_folder / report.JSON).exists()]
    for config in left:
        train.prepare(config)
    if not left:
        return []
    failed: list[str] = []
    stop = Stop()
    with cluster(left[0].cluster, cpus=max(map(train.cpus, left))), _Bench() as bench:
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
            if stop():
                raise SystemExit(128 + signal.SIGTERM)
    return failed


class _Bench:
    """Machines that outlive one run, with the state in which their learners started."""

    def __init__(self) -> None:
        self._machines: Machines | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="agile-ray-")

    def __enter__(self) -> "_Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        self._folder.cleanup()

    def clear(self) -> None:
        """End the machines; the next run starts its own."""
        if self._machines is not None:
            self._machines.close()
        self._machines = None

    def train(self, config: RunConfig, stop: Stop) -> None:
        """Train one run, on the machines that are up if they fit."""
        environment = train.prepare(config)
        first = Path(self._folder.name) / "first"
        with train.progress_of(config) as progress:
            if self._machines is not None and not self._machines.fit(config):
                self.clear()
            if self._machines is None:
                progress.say("starting engines and learners")
                self._machines = start(config, environment, progress)
                first.mkdir(exist_ok=True)
                self._machines.learners.save(first)
            else:
                self._machines.reopen(config, progress)
                self._machines.learners.load(first)
            train.run(config, environment, self._machines, progress, stop)


def _adopt(config: RunConfig, others: Sequence[RunConfig]) -> None:
    """Take over the imitation of a run that imitated alike, if there is one."""
    if (config.run_folder / SFT).exists() or (config.run_folder / "checkpoints").exists():
        return
    for other in others:
        if imitation_of(other) == imitation_of(config) and (other.run_folder / SFT).exists():
            adopt(other.run_folder / SFT, config.run_folder / SFT)
            return


def imitation_of(config: RunConfig) -> dict[str, object]:
    """All of a configuration that imitation hangs on."""
    sections = config.model_dump(mode="json")
    seen = {name: sections[name] for name in SEEN} | {name: sections["ppo"][name] for name in PPO_SEEN}
    for key in UNSEEN:
        section, _, name = key.partition(".")
        seen[section] = {key: value for key, value in seen[section].items() if key != name}
    return seen
