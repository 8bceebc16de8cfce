"""What a sweep trains: the runs that follow from a spec with axes.

    base: quickstart                          or include: [quickstart, gpu.yaml], of which the later wins
    loop: {iterations: 10}                    any section of a run's configuration, for every run
    grid:                                     every combination of these values is a run
      env.advice_cost: [0.15, 0.3, 0.5]
      seed: [0, 1, 2]
    runs:                                     beside the grid, or instead of it: one list of overrides per run
      - [env.advice_cost=0.15, seed=0]
    together: true                            one process for all runs: engines and learners start once; default: one
                                              process per run
    imitation_ignores: [env.advice_cost]      runs that imitate alike share one imitation; these keys may differ
    compare: {key: credit.mode, to: heuristic}    pair runs that differ by this key alone, and compare total scores

A run is named after its overrides unless it sets run.name. The runs of the sweep NAME are in <run.folder>/NAME. Values
keep their spelling, in overrides and names.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agile_ray.config import Axes, ComparedKey, RunConfig
from agile_ray.config_file import Spec, read_spec
from agile_ray.errors import ConfigError
from agile_ray.record.folder import SweepFolder
from launch.run.finished import is_finished
from launch.run.shipped_configs import find

NAME_LENGTH = 200
"""Letters to which the name of a run is shortened; the rest becomes a hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training of a sweep."""

    config: RunConfig
    words: tuple[str, ...]  # what follows `agile-ray` on the command line
    group: str  # shared by jobs that differ by their seed alone
    overrides: dict[str, str]  # its own, by key
    track: tuple[str, ...] = ()  # programs that are given its metrics meanwhile

    @property
    def finished(self) -> bool:
        """Whether the run has written its report, after all its iterations."""
        return is_finished(self.config)


def read_plan(path: Path) -> Spec:
    """Read a sweep's file.

    Raises:
        ConfigError: the file is not a sweep.
    """
    return read_spec(path, find=find)


def plan(path: Path, sheet: Spec, overrides: Sequence[str] = (), *, track: Sequence[str] = ()) -> list[Job]:
    """The runs of a sweep, each with its checked configuration.

    Args:
        path: of the sweep's file, for its name and for errors.
        sheet: what it says.
        overrides: for every run.
        track: names of programs that are given the metrics meanwhile.

    Raises:
        ConfigError: a configuration is wrong, two runs have the same name or differ by their spelling alone, `compare`
            matches no run, or an override sets a key that the sweep varies.
    """
    _check_free(path, sheet.axes, overrides)
    if path.stem.startswith("."):
        raise ConfigError(f"{path}: the runs are in a folder named after the file, which must not begin with a dot")
    folder = sheet.resolve(overrides).run.folder / path.stem
    jobs = [_job(sheet, own, overrides, folder, tuple(track)) for own in varied(sheet.axes)]
    _check_names(path, jobs)
    if sheet.axes.compare:
        _check_compared(path, sheet.axes.compare, jobs)
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    if unknown := [key for key in sheet.axes.imitation_ignores if key not in keys]:
        raise ConfigError(
            f"{path}: imitation_ignores: each is a key of grid or runs, found {', '.join(unknown)}; there are: "
            f"{', '.join(keys) or 'none'}"
        )
    return jobs


def varied(axes: Axes) -> list[tuple[str, ...]]:
    """The overrides of every run, in order."""
    columns = [[f"{key}={'null' if value is None else value}" for value in values] for key, values in axes.grid.items()]
    return [*(itertools.product(*columns) if columns else ()), *axes.runs]


def _job(sheet: Spec, own: Sequence[str], overrides: Sequence[str], folder: Path, track: tuple[str, ...]) -> Job:
    named = any(override.startswith("run.name=") for override in own)
    words = [*overrides, *own, *([] if named else [f"run.name={_name(own)}"]), f"run.folder={folder}"]
    group = _label([override for override in own if not override.startswith(("seed=", "run.name="))])
    config = sheet.resolve(words)
    pairs = dict(override.split("=", 1) for override in own)
    return Job(
        config=config,
        words=("train", sheet.origin, *words, *flags(track)),
        group=group,
        overrides=pairs,
        track=track,
    )


def flags(track: Sequence[str]) -> list[str]:
    """The words by which `agile-ray train` is told which programs to give its metrics."""
    return [word for form in track for word in ("--track", form)]


def pairs(jobs: Sequence[Job], compare: ComparedKey) -> list[tuple[Job, Job]]:
    """Each finished run with the finished baseline run that differs from it by the compared key alone."""
    finished = [job for job in jobs if job.finished and compare.key in job.overrides]
    baselines = {_rest(job, compare.key): job for job in finished if job.overrides[compare.key] == compare.to}
    return [
        (job, baselines[_rest(job, compare.key)])
        for job in finished
        if job.overrides[compare.key] != compare.to and _rest(job, compare.key) in baselines
    ]


def _check_names(path: Path, jobs: Sequence[Job]) -> None:
    names = [job.config.run.name for job in jobs]
    twice = {name for name in names if names.count(name) > 1}
    if not jobs:
        raise ConfigError(
            f"{path}: a sweep has at least one run, by `grid` or `runs`, found neither; `agile-ray train` or `submit` "
            "trains a single run"
        )
    if twice:
        raise ConfigError(
            f"{path}: every run of a sweep has its own name; these name several: {', '.join(sorted(twice))}"
        )
    files = SweepFolder(path.parent)
    if taken := {files.table.name, files.study_table.name, files.index.name}.intersection(names):
        raise ConfigError(f"{path}: run.name: {', '.join(sorted(taken))} is a file of the sweep; choose another name")
    alike: dict[str, str] = {}
    for job in jobs:
        if "run.name" in job.overrides:
            continue
        settings = job.config.model_dump_json(exclude={"run": {"name"}})
        if settings in alike:
            raise ConfigError(
                f"{path}: {alike[settings]} and {job.config.run.name} are the same run, spelled in two ways; "
                "remove one, or give each a run.name"
            )
        alike[settings] = job.config.run.name


def _check_free(path: Path, axes: Axes, overrides: Sequence[str]) -> None:
    for run in axes.runs:
        keys = [own.partition("=")[0] for own in run]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ConfigError(f"{path}: runs: a run sets every key once, found {', '.join(twice)} twice")
    for key, values in axes.grid.items():
        if not values:
            raise ConfigError(f"{path}: grid.{key}: a key of the grid has at least one value, found none")
    own_keys = {own.partition("=")[0] for run in varied(axes) for own in run}
    for override in overrides:
        if (key := override.partition("=")[0]) in {*own_keys, "run.name"}:
            raise ConfigError(
                f"override {override}: the sweep {path.stem} sets {key} itself; copy {path} and change it there"
            )


def _check_compared(path: Path, compare: ComparedKey, jobs: Sequence[Job]) -> None:
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    if compare.key not in keys:
        there = ", ".join(keys) or "none"
        raise ConfigError(f"{path}: compare.key must be a key of grid or runs, found {compare.key}; there are: {there}")
    values = dict.fromkeys(job.overrides[compare.key] for job in jobs if compare.key in job.overrides)
    if compare.to not in values:
        raise ConfigError(
            f"{path}: compare.to must be a value that a run gives {compare.key}, found {compare.to}; "
            f"there are: {', '.join(values)}"
        )


def _rest(job: Job, key: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in job.overrides.items() if name not in (key, "run.name")))


def _label(overrides: Sequence[str]) -> str:
    """`env.advice_cost=0.15`, `seed=0` -> `advice_cost-0.15_seed-0`."""
    pairs = (override.partition("=") for override in overrides)
    text = "_".join(f"{key.rpartition('.')[2]}-{value}" for key, _, value in pairs)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text) or "base"


def _name(overrides: Sequence[str]) -> str:
    label = _label(overrides)
    if len(label) <= NAME_LENGTH:
        return label
    return f"{label[: NAME_LENGTH - 9]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
