"""Copies what a config names outside of this project into a job's working folder.

    trivia:build             trivia.py, or the package trivia
    an entry point           the package that it is in, and what says that it is one

The working folder is on the path of all processes of a job. The packages that a module needs must be installed there.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

from agile_ray.config import INBOX, RunConfig
from agile_ray.errors import ConfigError
from agile_ray.plugins.resolver import ADDRESS, registered

IMPORT_S = 120.0
OWN = ("agile_ray", "envs", "rollout", "learner", "configs", "launch")


def ship(configs: Sequence[RunConfig], package: Path) -> list[str]:
    """Copy the modules that any of the configurations names into a folder; return their names.

    Raises:
        ConfigError: a module is not found, has the name of one that is there, or can't be imported from the copy.
    """
    shipped: dict[str, str] = {}  # top-level module -> key that named it
    for key, kind, name in dict.fromkeys(named for config in configs for named in _named(config)):
        point = None if ADDRESS.fullmatch(name) else registered(kind).get(name)
        if point is None and not ADDRESS.fullmatch(name):
            continue  # built in
        address = name if point is None else point.value
        top = address.partition(":")[0].partition(".")[0]
        if top in OWN:
            continue
        if top not in shipped:
            _copy(top, package, key=key)
        shipped[top] = key
        if point is not None:
            _register(point, package)
        _try_import(address.partition(":")[0], package, key=key)
    return list(shipped)


def _named(config: RunConfig) -> Sequence[tuple[str, str, str]]:
    """Key, the kind of what it names, and the name."""
    expert = config.env.expert
    is_own = config.env.recorded is not None or expert.startswith(INBOX)
    return (
        ("env.name", "environments", config.env.name),
        ("env.expert", "experts", "" if is_own else expert),
        ("env.judge", "judges", config.env.judge or ""),
        ("credit.mode", "credit_modes", config.credit.mode),
    )


def _copy(top: str, package: Path, *, key: str) -> None:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    found = importlib.util.find_spec(top)
    if found is None:
        raise ConfigError(f"{key}: there is no module {top} in {os.getcwd()} or among the installed packages")
    folders = list(found.submodule_search_locations or ())
    source = Path(folders[0]) if folders else Path(found.origin or "")
    target = package / source.name
    if target.exists():
        raise ConfigError(f"{key}: {source.name} has the name of something else in the job's folder; rename it")
    if folders:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _register(point: EntryPoint, package: Path) -> None:
    """Write what tells Python of the entry points of a package."""
    if point.dist is None:
        return
    folder = package / f"{point.dist.name.replace('-', '_')}-{point.dist.version}.dist-info"
    folder.mkdir(exist_ok=True)
    for file in ("METADATA", "entry_points.txt"):
        (folder / file).write_text(point.dist.read_text(file) or "", encoding="utf-8")


def _try_import(module: str, package: Path, *, key: str) -> None:
    """Import a module in a process that sees the copy, not the folder that it comes from."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        cwd=package,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=IMPORT_S,
        check=False,
    )
    if done.returncode:
        raise ConfigError(
            f"{key}: {module} must be importable from its copy in the job's folder, found "
            f"{done.stderr.strip().splitlines()[-1]}; put the modules that it needs into one package with it"
        )
