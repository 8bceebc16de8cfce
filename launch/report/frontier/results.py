"""Reads what frontiers are made of: the final evaluations of several runs."""

from collections.abc import Mapping, Sequence
from itertools import chain

from agile_ray import config_file
from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.record import evaluations
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.types import Session
from launch.report.frontier.measure import SAMPLED, RunResults

NOT_COMPARED = ("seed", "run.", "env.advice_cost", "cluster.")
"""Starts of keys in which runs of one frontier may differ."""


def find_runs(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """The finished runs among folders of runs and sweeps, in order.

    Raises:
        ConfigError: a folder is neither a run that has finished nor a sweep with one.
    """
    found: list[RunFolder] = []
    for folder in folders:
        runs = [folder] if folder.config.is_file() else SweepFolder(folder.path).finished_runs()
        if not runs or not all(run.is_finished for run in runs):
            raise ConfigError(
                f"{folder}: must be a finished run, with {folder.report.name}, or a sweep of which a run has finished; "
                "found neither"
            )
        found += runs
    return found


def read_results(runs: Sequence[RunFolder]) -> list[RunResults]:
    """Read what finished runs have evaluated.

    Raises:
        ConfigError: a file is missing, damaged or of a newer version.
    """
    configs = [config_file.load(run.config) for run in runs]
    return [
        RunResults(run=run.name, policy=policy, seed=config.seed, sessions=sessions_with_asks(run))
        for run, config, policy in zip(runs, configs, policies(configs), strict=True)
    ]


def sessions_with_asks(run: RunFolder) -> dict[str, list[Session]]:
    """Every final evaluation of a run, by entry; that of SAMPLED with its turns, if they are stored.

    Raises:
        ConfigError: a newer version wrote one of them.
    """
    found = evaluations.kept(run)
    if SAMPLED in found:
        try:
            found[SAMPLED] = evaluations.read_whole(run, SAMPLED)
        except ConfigError:  # an older version stored no tokens of evaluations
            return found
    return found


def policies(configs: Sequence[RunConfig]) -> list[str]:
    """Name each configuration by the keys in which these configurations differ: equal names share a frontier."""
    flat = [dict(_flat(config.model_dump(mode="json"))) for config in configs]
    keys = [key for key in dict.fromkeys(chain(*flat)) if not key.startswith(NOT_COMPARED)]
    varied = [key for key in keys if any(one.get(key) != flat[0].get(key) for one in flat)]
    return [" ".join(f"{key}={one.get(key)}" for key in varied) or str(one["env.name"]) for one in flat]


def _flat(section: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Values by dotted key."""
    found: list[tuple[str, object]] = []
    for name, value in section.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found
