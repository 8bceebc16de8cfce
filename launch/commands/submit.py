"""`agile-ray submit`: runs `agile-ray train` as a job of a Ray cluster.

    this machine                              the cluster
    pip install --target PACKAGE project  ->  PACKAGE is the job's working folder, and on the path of its every process
    PACKAGE/submitted.yaml, resolved      ->  python -m launch.main train submitted.yaml
    prints the log, takes the exit code   <-  log, exit code

A working folder that is only copied has no entry points, so vLLM would not find this project's weight transfer. What
pip installs into a target folder has them, takes a second, and asks no package index. The heavy libraries come with the
cluster's image or environment.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.config import RunConfig
from agile_ray.errors import AgileError, ConfigError, DeadlineError
from launch.cluster.address import check_shared
from launch.run.shipped_configs import read

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PROJECT = Path(__file__).resolve().parents[2]
INTERRUPTED = 130
CONFIG_NAME = "submitted.yaml"
INSTALL_S = 300.0
FINISH_S = 60.0
"""How long the cluster may take to know a job's end after its log has ended."""


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a shipped config, or a YAML file.")],
    address: Annotated[str, typer.Option(help="The cluster's dashboard, such as http://10.0.0.1:8265.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as run.folder=/mnt/runs.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Print the job's log until it ends, then exit as it did.")] = True,
    project: Annotated[
        Path, typer.Option(help="This project's source.", show_default="where this runs from")
    ] = PROJECT,
) -> None:
    """Train as a job of a Ray cluster.

    Installs this project in the job, starts it, follows its log, and exits as it exits.

    Paths in the config must be absolute, on a disk that every node shares. The same command with the same run.name
    resumes from the last whole checkpoint.

    On a cluster with token authentication set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token.

    \b
    Example:
      agile-ray submit quickstart --address http://10.0.0.1:8265 run.folder=/mnt/runs model.path=/mnt/models/tiny
    """
    resolved = read(config, overrides or ())
    check_shared(resolved)
    client = _connect(address)
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        package = Path(folder) / "package"
        install(project, package)
        job = _start(client, resolved, package)
    print(f"job {job}: run {resolved.run.name} in {resolved.run_folder}", flush=True)
    if not follow:
        return
    try:
        code = asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        print(f"job {job} goes on; `ray job logs -f {job}` follows it, `ray job stop {job}` ends it")
        code = INTERRUPTED
    raise typer.Exit(code)


def install(project: Path, package: Path) -> None:
    """Install the project, entry points included, into a folder of its own.

    Raises:
        ConfigError: the folder is no source of this project, or pip can't build it.
    """
    if not (project / "pyproject.toml").is_file():
        raise ConfigError(f"--project {project}: has no pyproject.toml; name a checkout of this project")
    source = package.with_name("source")  # a build leaves files behind: not in the user's checkout
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
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ConfigError(
            f"--address {address}: token refused; set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--address {address}: no Ray dashboard answers there as it should ({error})") from error


def _start(client: "JobSubmissionClient", config: RunConfig, package: Path) -> str:
    (package / CONFIG_NAME).write_text(config.yaml(), encoding="utf-8")
    try:
        return client.submit_job(
            entrypoint=f"python -m launch.main train {CONFIG_NAME}",
            runtime_env={"working_dir": str(package)},
            metadata={"run": config.run.name, "config_hash": config.digest},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise AgileError(f"submit: the cluster refused the job ({error})") from error


async def _follow(client: "JobSubmissionClient", job: str) -> int:
    """Print a job's log until it ends, and return its exit code.

    Raises:
        AgileError: the connection broke; the job goes on.
        DeadlineError: the log has ended, but not the job.
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
            f"job {job}: the connection broke ({error}), the job goes on; `ray job logs -f {job}`"
        ) from error


async def _exit_code(client: "JobSubmissionClient", job: str) -> int:
    from ray.job_submission import JobStatus

    while not (info := client.get_job_info(job)).status.is_terminal():
        await asyncio.sleep(0.5)
    if info.status is JobStatus.SUCCEEDED:
        return 0
    if info.driver_exit_code is None:  # it never ran, or was stopped; otherwise its log has told
        print(f"job {job}: {info.status}: {info.message}", file=sys.stderr)
    return info.driver_exit_code or 1
