"""`agile-ray sweep`: one training after the other, each in a process of its own, then a table over all of them.

    base: quickstart                          a shipped config, or a path
    runs:                                     one list of overrides for each run
      - [env.advice_cost=0.15, seed=0]
    grid:                                     or (and) every combination of these
      env.advice_cost: [0.15, 0.3, 0.5]
      seed: [0, 1, 2]
    together: true                            in one process: engines and learners start once, and runs that imitate
                                              alike share one imitation; default: a process for each run
    compare: {key: credit.mode, to: heuristic}    total scores of runs that differ by this key alone, paired

A run is named after its overrides, unless it sets run.name. All runs of the sweep NAME lie in <run.folder>/NAME, beside
sweep.json. A run with a report is finished, and is not run again.
"""

import itertools
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError

from agile_ray.config import RunConfig, Section
from agile_ray.config_file import explain
from agile_ray.errors import AgileError, ConfigError
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.json_files import write_json
from launch.report import files, paired_runs, sweep_table
from launch.run.lock import alone
from launch.run.shipped_configs import SWEEPS, find, read


class Compare(Section):
    """Pairs of runs that differ by one key alone."""

    key: str
    """The key, such as credit.mode."""
    to: str
    """Its value in the run that the others are compared with."""


class Plan(Section):
    """A sweep's file."""

    base: str
    """Name of a shipped config, or a path."""
    runs: tuple[tuple[str, ...], ...] = ()
    """One list of overrides for each run."""
    grid: dict[str, tuple[str | int | float | bool | None, ...]] = {}
    """Values by key; every combination is a run."""
    together: bool = False
    """Train all in one process, on the same engines and learners, sharing imitation."""
    compare: Compare | None = None
    """Which runs to set against which."""

    def overrides(self) -> list[tuple[str, ...]]:
        """The overrides of every run, in order."""
        columns = [[f"{key}={_word(value)}" for value in values] for key, values in self.grid.items()]
        return [*(itertools.product(*columns) if columns else ()), *self.runs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training of a sweep."""

    config: RunConfig
    words: tuple[str, ...]  # after `agile-ray`
    group: str  # of jobs that differ by their seed alone
    overrides: dict[str, str]  # its own, by key

    @property
    def folder(self) -> RunFolder:
        """Where the run is trained."""
        return RunFolder.of(self.config)


def command(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="Name of a shipped sweep, or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of keys that the sweep does not vary."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print each run as a command, run nothing.")] = False,
    only_table: Annotated[
        bool, typer.Option("--table", help="Show the table of what is finished, run nothing.")
    ] = False,
) -> None:
    """Train one run after the other, then show all in one table.

    Its runs, and the table as sweep.json, lie in runs/SWEEP (run.folder says where else). The same command resumes:
    finished runs are skipped, a broken one goes on from its last checkpoint. With --table it shows how far another one
    has come.

    Example: agile-ray sweep study run.folder=/data/runs
    """
    path = find(sweep, folder=SWEEPS)
    sheet = read_plan(path)
    jobs = plan(path, sheet, overrides or ())
    if dry_run:
        for job in jobs:
            print(shlex.join(["agile-ray", *job.words]) + ("  # finished" if job.folder.is_finished else ""))
        return
    folder = SweepFolder(jobs[0].config.run.folder)
    failed = []
    if not only_table:
        with alone(folder):
            failed = _train(jobs, together=sheet.together)
    finished = [job for job in jobs if job.folder.is_finished]
    if only_table:
        print(f"{len(finished)} of {len(jobs)} runs are finished")
        if not finished:
            return
    rows = [sweep_table.row(files.load(job.folder), group=job.group) for job in finished]
    compared = paired_runs.compare(_pairs(jobs, sheet.compare)) if sheet.compare else []
    table = {
        "sweep": path.stem,
        "rows": [asdict(row) for row in rows],
        "groups": [asdict(group) for group in sweep_table.groups(rows)],
        "compared": [asdict(one) for one in compared],
        "failed": failed,
    }
    write_json(folder.table, table)
    sweep_table.show(rows)
    paired_runs.show(compared)
    if failed:
        raise AgileError(f"sweep {path.stem}: {len(failed)} of {len(jobs)} runs failed: {', '.join(failed)}")


def _train(jobs: Sequence[Job], *, together: bool) -> list[str]:
    """Train every run that is not finished; returns those that failed, each with how."""
    if not together:
        return [f"{job.config.run.name} (exit code {code})" for job in jobs if (code := _run(job))]
    from launch.run.shared_machines import train_all

    return train_all([job.config for job in jobs])


def read_plan(path: Path) -> Plan:
    """Read a sweep's file.

    Raises:
        ConfigError: it is no sweep.
    """
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        rule = "a sweep has `base`, and `runs`, each a list such as [seed=1, credit.mode=linked], or `grid`"
        raise ConfigError(f"{path}: {rule}; {'; '.join(explain(error, Plan))}") from error


def plan(path: Path, sheet: Plan, overrides: Sequence[str] = ()) -> list[Job]:
    """Check every run's config.

    Raises:
        ConfigError: one of them is wrong, two runs have one name, nothing could be compared, or an override is of a key
            that the sweep varies.
    """
    _check_free(path, sheet, overrides)
    folder = read(sheet.base, overrides).run.folder / path.stem
    jobs = []
    for own in sheet.overrides():
        named = any(override.startswith("run.name=") for override in own)
        words = [*overrides, *own, *([] if named else [f"run.name={_name(own)}"]), f"run.folder={folder}"]
        group = _name([override for override in own if not override.startswith(("seed=", "run.name="))])
        config = read(sheet.base, words)
        pairs = dict(override.split("=", 1) for override in own)
        jobs.append(Job(config=config, words=("train", sheet.base, *words), group=group, overrides=pairs))
    names = [job.config.run.name for job in jobs]
    twice = {name for name in names if names.count(name) > 1}
    if twice or not jobs:
        found = f"these stand for several: {', '.join(sorted(twice))}" if twice else "found no run"
        raise ConfigError(f"{path}: a sweep has runs, each with a name of its own; {found}")
    if sheet.compare:
        _check(path, sheet.compare, jobs)
    return jobs


def _check_free(path: Path, sheet: Plan, overrides: Sequence[str]) -> None:
    varied = {own.partition("=")[0] for run in sheet.overrides() for own in run}
    for override in overrides:
        if (key := override.partition("=")[0]) in {*varied, "run.name"}:
            raise ConfigError(
                f"override {override}: the sweep {path.stem} sets {key} itself; copy {path} and change it there"
            )


def _check(path: Path, compare: Compare, jobs: Sequence[Job]) -> None:
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    if compare.key not in keys:
        there = ", ".join(keys) or "none"
        raise ConfigError(f"{path}: compare.key is a key of grid or runs, found {compare.key}; there are: {there}")
    values = dict.fromkeys(job.overrides[compare.key] for job in jobs if compare.key in job.overrides)
    if compare.to not in values:
        raise ConfigError(
            f"{path}: compare.to is a value that a run gives {compare.key}, found {compare.to}; "
            f"there are: {', '.join(values)}"
        )


def _pairs(jobs: Sequence[Job], compare: Compare) -> list[paired_runs.Pair]:
    """Finished runs beside the finished run that differs from them by the compared key alone."""
    finished = [job for job in jobs if job.folder.is_finished and compare.key in job.overrides]
    by_rest = {_rest(job, compare.key): job for job in finished if job.overrides[compare.key] == compare.to}
    return [
        paired_runs.Pair(
            group=job.group,
            folder=job.folder,
            to=by_rest[_rest(job, compare.key)].folder,
        )
        for job in finished
        if job.overrides[compare.key] != compare.to and _rest(job, compare.key) in by_rest
    ]


def _rest(job: Job, key: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in job.overrides.items() if name not in (key, "run.name")))


def _word(value: str | float | bool | None) -> str:
    return "null" if value is None else str(value)


def _name(overrides: Sequence[str]) -> str:
    """`env.advice_cost=0.15`, `seed=0` -> `advice_cost-0.15_seed-0`."""
    pairs = (override.partition("=") for override in overrides)
    text = "_".join(f"{key.rpartition('.')[2]}-{value}" for key, _, value in pairs)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text) or "base"


def _run(job: Job) -> int:
    """Train in a process of its own; its exit code, 0 if it had finished before."""
    if job.folder.is_finished:
        print(f"{job.config.run.name}: finished", flush=True)
        return 0
    print(f"{job.config.run.name}: {shlex.join(['agile-ray', *job.words])}", flush=True)
    child: subprocess.Popen[bytes] | None = None
    stopped: list[int] = []

    def stop(signum: int, _: object) -> None:  # no wait in here: it would wait for the lock of the one below
        stopped.append(signum)
        if child:
            child.terminate()  # the training makes a checkpoint first

    before = signal.signal(signal.SIGTERM, stop)  # first: a child that is already on its own would never be told
    try:
        child = subprocess.Popen([sys.executable, "-m", "launch.main", *job.words])
        if stopped:  # while it was started; to be told twice is harmless
            child.terminate()
        code = child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if stopped:
        raise SystemExit(128 + signal.SIGTERM)
    return code
