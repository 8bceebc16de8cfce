"""Runs a training as a job of a Ray cluster.

    this machine                              the cluster
    PACKAGE (launch/cluster/package.py)   ->  the job's working folder, on the path of all its processes
    PACKAGE/submitted.yaml, resolved      ->  python -m launch.main train submitted.yaml
    prints the log, takes the exit code   <-  log, exit code

The job runs in the environment whose Ray runs the cluster, activated or not. Its entry point is a shell command that
Ray's job supervisor starts. The supervisor has loaded Ray from that environment, so its memory map names the folder.
"""

import hashlib
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.record.provenance import git_state
from launch.border import INTERRUPTED
from launch.cluster.jobs import KIND, STOP_WAIT, Jobs, Kind, Resources, in_folder
from launch.cluster.package import build
from launch.extend.ship import ship

CONFIG_NAME = "submitted.yaml"
STOP_S = 30
"""Time between SIGTERM and SIGKILL when a training is stopped, seconds. It takes up to 20 (launch/run/stop.py)."""
FIND_PYTHON = (
    r"BIN=$(sed -n 's#^[^/]*\(/.*\)/lib[^/]*/python[^/]*/[^/]*-packages/ray/_raylet[^/]*\.so$#\1/bin#p'"
    r' /proc/$PPID/maps | head -n 1); PATH="${BIN:+$BIN:}$PATH"; command -v python > /dev/null'
    " || { echo 'agile-ray: submit: no python in the environment of Ray nor on the PATH that it was started with; "
    "activate the environment before ray start' >&2; exit 1; }; "
)
"""How a job finds the Python of the environment that Ray runs in, or else the one on the PATH."""


def entrypoint(*words: str) -> str:
    """The shell command of a job that runs `agile-ray` with these words."""
    return f"{FIND_PYTHON}exec python -m launch.main {shlex.join(words)}"


def submit(
    config: RunConfig,
    *,
    address: str,
    project: Path,
    follow: bool,
    variables: Mapping[str, str] | None = None,
    resources: Resources | None = None,
) -> int:
    """Submit a training and, on request, follow its log.

    Args:
        config: with absolute paths, on a disk that every node shares.
        address: of the cluster's dashboard.
        project: a checkout of this project, or where it is installed.
        follow: print the log until the job ends.
        variables: environment variables of all processes of the job.
        resources: what the job's own command reserves.

    Returns:
        The job's exit code; 0 if it is not followed, INTERRUPTED if the user stops following.

    Raises:
        ConfigError: the cluster doesn't answer at the address, the packages can't be copied, or another job trains in
            the run's folder.
        AgileError: the cluster refuses the job, or the connection broke while the job goes on.
        DeadlineError: an answer took too long, or the log has ended and the job has not.
    """
    jobs = Jobs.at(address)
    if (other := in_folder(jobs.all(), config.run_folder)) is not None:
        raise ConfigError(
            f"run.name: job {other.id} trains in {config.run_folder} ({other.state}); `agile-ray logs {other.id} "
            f"--follow` follows it, `agile-ray stop {other.id}` ends it, another run.name starts another run"
        )
    with packaged(project, [config]) as (package, shipped):
        (package / CONFIG_NAME).write_text(config.yaml(), encoding="utf-8")
        job = jobs.submit(
            entrypoint("train", CONFIG_NAME),
            runtime_env={"working_dir": str(package), "env_vars": stoppable(variables or {}, STOP_S)},
            metadata=metadata("run", config.run.name, config.run_folder, [config], commit=commit_of(project)),
            resources=resources,
        )
    if shipped:
        print(f"with {', '.join(shipped)}")
    print(f"job {job}: run {config.run.name} in {config.run_folder}", flush=True)
    return followed(jobs, job, config.run.name) if follow else 0


def followed(jobs: Jobs, job: str, name: str) -> int:
    """Print a job's log until it ends, or until Ctrl-C; return its exit code, or INTERRUPTED."""
    try:
        return jobs.follow(job)
    except KeyboardInterrupt:
        print(f"{name} goes on; `agile-ray logs {job} --follow` follows it, `agile-ray stop {job}` ends it")
        return INTERRUPTED


@contextmanager
def packaged(project: Path, configs: Sequence[RunConfig]) -> Iterator[tuple[Path, list[str]]]:
    """Build the working folder of jobs with these configurations; it is deleted after the block.

    Yields:
        the folder, and the user's modules in it.

    Raises:
        ConfigError: as `build` and `ship`.
    """
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        package = Path(folder) / "package"
        build(project, package)
        yield package, ship(configs, package)


def stoppable(variables: Mapping[str, str], seconds: int) -> dict[str, str]:
    """Environment variables of a job that has this long to end after SIGTERM, unless they say so themselves."""
    return {STOP_WAIT: str(seconds), **variables}


def metadata(
    kind: Kind, name: str, folder: Path, configs: Sequence[RunConfig], *, commit: str, sweep: Path | None = None
) -> dict[str, str]:
    """What a job is found again by; launch/cluster/jobs.py describes it."""
    return {
        KIND: kind,
        "run": name,
        "folder": str(folder),
        "sweep": "" if sweep is None else str(sweep),
        "config_hash": digest(configs),
        "commit": commit,
    }


def commit_of(project: Path) -> str:
    """The commit of a checkout, with "+" if files differ from it; "unknown" of an installation."""
    git = git_state(project)
    return f"{git.commit}{'+' if git.dirty else ''}"


def digest(configs: Sequence[RunConfig]) -> str:
    """Content hash of one or several configurations, 16 hex digits."""
    if len(configs) == 1:
        return configs[0].digest
    return hashlib.sha256("".join(config.digest for config in configs).encode()).hexdigest()[:16]
