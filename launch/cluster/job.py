"""Runs a training as a job of a Ray cluster.

    this machine                              the cluster
    pip install --target PACKAGE project  ->  PACKAGE is the job's working folder, and on the path of all its processes
    modules that the config names     ->  copies in PACKAGE (launch/extend/ship.py)
    PACKAGE/submitted.yaml, resolved      ->  python -m launch.main train submitted.yaml
    prints the log, takes the exit code   <-  log, exit code

vLLM finds this project's weight transfer by its entry points, and a copied working folder has none. What pip installs
into a target folder has them. The installation takes a second and needs no package index: the heavy libraries come
with the cluster's image or environment.

The job runs in the environment whose Ray runs the cluster, activated or not. Its entry point is a shell command that
Ray's job supervisor starts. The supervisor has loaded Ray from that environment, so its memory map names the folder.

Every request to the dashboard has a deadline of its own; following the log has none.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agile_ray.config import RunConfig
from agile_ray.errors import AgileError, ConfigError, DeadlineError
from launch.border import INTERRUPTED
from launch.cluster.dashboard import Dashboard
from launch.extend.ship import ship

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

CONFIG_NAME = "submitted.yaml"
ENTRYPOINT = (
    r"BIN=$(sed -n 's#^[^/]*\(/.*\)/lib[^/]*/python[^/]*/[^/]*-packages/ray/_raylet[^/]*\.so$#\1/bin#p'"
    r' /proc/$PPID/maps | head -n 1); PATH="${BIN:+$BIN:}$PATH"; command -v python > /dev/null'
    " || { echo 'agile-ray: submit: no python in the environment of Ray nor on the PATH that it was started with; "
    "activate the environment before ray start' >&2; exit 1; }; "
    f"exec python -m launch.main train {CONFIG_NAME}"
)
"""What the job runs: `agile-ray train`, by the Python of the environment that Ray runs in, else by that on the PATH."""
CONNECT_S = 60.0
"""Longest wait for one answer of the dashboard, seconds."""
SEND_S = 300.0
"""Longest wait for the dashboard to take the job with its working folder, about 1 MB, seconds."""
INSTALL_S = 300.0
FINISH_S = 60.0
"""How long the cluster may take to report a job's end after its log has ended."""

Answer = TypeVar("Answer")


def submit(
    config: RunConfig, *, address: str, project: Path, follow: bool, variables: Mapping[str, str] | None = None
) -> int:
    """Submit a training and, on request, follow its log.

    Args:
        config: with absolute paths, on a disk that every node shares.
        address: of the cluster's dashboard.
        project: a checkout of this project.
        follow: print the log until the job ends.
        variables: environment variables of all processes of the job.

    Returns:
        The job's exit code; 0 if it is not followed, INTERRUPTED if the user stops following.

    Raises:
        ConfigError: the cluster doesn't answer at the address, or the folder can't be installed.
        AgileError: the cluster refuses the job, or the connection broke while the job goes on.
        DeadlineError: the installation or an answer took too long, or the log has ended and the job has not.
    """
    client = _connect(address)
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        package = Path(folder) / "package"
        install(project, package)
        shipped = ship(config, package)
        job = _start(client, config, package, variables or {})
    if shipped:
        print(f"with {', '.join(shipped)}")
    print(f"job {job}: run {config.run.name} in {config.run_folder}", flush=True)
    if not follow:
        return 0
    try:
        return asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        print(f"job {job} continues; `ray job logs -f {job}` follows it, `ray job stop {job}` ends it")
        return INTERRUPTED


def install(project: Path, package: Path) -> None:
    """Install the project, entry points included, into a folder of its own.

    Raises:
        ConfigError: the folder is not a checkout of this project, or pip can't build it.
        DeadlineError: pip took too long.
    """
    if not (project / "pyproject.toml").is_file():
        raise ConfigError(f"--project {project}: a checkout of this project has pyproject.toml, found none; name one")
    source = package.with_name("source")  # a build leaves files behind; they must not be in the user's checkout
    source.mkdir(parents=True)
    for name in ("agile_ray", "envs", "rollout", "learner", "configs", "launch"):
        shutil.copytree(project / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project / name, source / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    words = [sys.executable, "-m", "pip", "install", *options, "--target", str(package), str(source)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(f"submit: pip took longer than {INSTALL_S:.0f} s to build {project}") from error
    if done.returncode:
        raise ConfigError(f"--project {project}: pip can't build it ({done.stderr[-500:]})")


def _connect(address: str) -> "JobSubmissionClient":
    if address.startswith(("http://", "https://")):
        Dashboard(address).check()  # answers within seconds, where Ray's client waits for a minute
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return _within(CONNECT_S, f"--address {address}: connecting", lambda: JobSubmissionClient(address))
    except AuthenticationError as error:
        raise ConfigError(
            f"--address {address}: token refused; set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--address {address}: no Ray dashboard answers there ({error})") from error


def _start(client: "JobSubmissionClient", config: RunConfig, package: Path, variables: Mapping[str, str]) -> str:
    (package / CONFIG_NAME).write_text(config.yaml(), encoding="utf-8")
    try:
        return _within(
            SEND_S,
            "submit: handing the job to the cluster",
            lambda: client.submit_job(
                entrypoint=ENTRYPOINT,
                runtime_env={"working_dir": str(package), "env_vars": dict(variables)},
                metadata={"run": config.run.name, "config_hash": config.digest},
            ),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise AgileError(f"submit: the cluster refused the job ({error})") from error


async def _follow(client: "JobSubmissionClient", job: str) -> int:
    """Print a job's log until it ends, then return the job's exit code.

    Raises:
        AgileError: the connection broke; the job continues.
        DeadlineError: the log has ended, the job has not.
    """
    import aiohttp

    try:
        async for text in client.tail_job_logs(job):
            sys.stdout.write(text)
            sys.stdout.flush()
        return await asyncio.wait_for(_exit_code(client, job), FINISH_S)
    except TimeoutError as error:
        raise DeadlineError(f"job {job}: its log ended {FINISH_S:.0f} s ago, but its status is not final") from error
    except (RuntimeError, aiohttp.ClientError) as error:
        raise AgileError(
            f"job {job}: the connection broke ({error}), the job continues; follow it with `ray job logs -f {job}`"
        ) from error


async def _exit_code(client: "JobSubmissionClient", job: str) -> int:
    from ray.job_submission import JobStatus

    def ask() -> "JobDetails":
        return _within(CONNECT_S, f"job {job}: asking for its status", lambda: client.get_job_info(job))

    while not (info := ask()).status.is_terminal():
        await asyncio.sleep(0.5)
    if info.status is JobStatus.SUCCEEDED:
        return 0
    if info.driver_exit_code is None:  # it never ran, or was stopped; otherwise its log says why
        print(f"job {job}: {info.status}: {info.message}", file=sys.stderr)
    return info.driver_exit_code or 1


def _within(limit_s: float, call: str, function: Callable[[], Answer]) -> Answer:
    """Call a function of Ray's client, which waits for an answer for ever.

    Args:
        limit_s: longest wait, seconds. The abandoned call then ends with this process.
        call: its name, for the error.
        function: runs in a thread of its own.

    Raises:
        DeadlineError: there was no answer in time.
    """
    results: list[Answer] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:  # noqa: BLE001  raised again where it is waited for
            errors.append(error)

    thread = threading.Thread(target=run, name=call, daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise DeadlineError(f"{call} took longer than {limit_s:g} s; does a firewall drop the connection?")
    return results[0]
