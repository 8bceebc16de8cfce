"""The jobs of a Ray cluster, by Ray's public job client. Each call has a deadline, each error is one line.

What `agile-ray submit` and `agile-ray sweep` write into the metadata of a job, so that it is found again by name:

    agile_ray     what the job is: "run", or "sweep" for the one that starts the runs of a sweep
    run           name of the run or of the sweep
    folder        its folder
    sweep         folder of the sweep that the run belongs to; "" if there is none
    config_hash   digest of the resolved configuration
    commit        of the checkout that was shipped, with "+" if files differ from it; or "unknown"
"""

import asyncio
import difflib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from agile_ray.errors import AgileError, ConfigError, DeadlineError
from launch.cluster.dashboard import Dashboard

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ANSWER_S = 5.0
"""Longest wait for one answer of a dashboard that has answered before, seconds."""
CONNECT_S = 60.0
"""Longest wait for Ray's client to load and to connect, seconds. `Dashboard.check` has found a cluster before."""
SEND_S = 300.0
"""Longest wait for the dashboard to take a job with its working folder, about 1 MB, seconds."""
FINISH_S = 60.0
"""How long the cluster may take to report a job's end after its log has ended."""
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Environment variable of a job: seconds between SIGTERM and SIGKILL when it is stopped. Ray's default is 3."""
PREFERRED = "RAY_API_SERVER_ADDRESS"
"""Environment variable that Ray's client prefers to the address that it is given, and to RAY_ADDRESS."""
SHOWN_CHARACTERS = 300
"""Length to which an error message cuts what the cluster said."""
KIND = "agile_ray"
ENDED = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})
LONG_AGO = datetime.fromtimestamp(0, UTC)

Answer = TypeVar("Answer")
Kind = Literal["run", "sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job that this project submitted."""

    id: str
    kind: Kind
    state: str  # PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED
    run: str
    folder: str
    sweep: str  # folder of the sweep that it belongs to; "" if there is none
    config_hash: str
    commit: str
    submitted: datetime | None = None
    ended_at: datetime | None = None
    message: str = ""
    exit_code: int | None = None  # of its command; None: it has not ended, or never ran

    @property
    def ended(self) -> bool:
        """Whether it will not run any more."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a job's own command reserves on the node that it runs on, beside what its actors reserve."""

    cpus: float | None = None
    gpus: float | None = None
    memory: int | None = None  # bytes
    custom: Mapping[str, float] | None = None


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, client: "JobSubmissionClient", *, where: str) -> None:
        """Wrap a connected client.

        Args:
            client: of Ray, or what has its methods.
            where: how errors name the cluster.
        """
        self._client = client
        self._where = where

    @classmethod
    def at(cls, address: str) -> "Jobs":
        """Connect to the dashboard at an address, such as http://10.0.0.1:8265.

        Raises:
            ConfigError: no Ray dashboard answers there, or it refuses the token; this takes at most a few seconds.
        """
        Dashboard(address).check()  # Ray's client would wait for minutes, after loading Ray
        return cls(_connect(address, f"--address {address}"), where=f"--address {address}")

    @classmethod
    def here(cls, address: str | None) -> "Jobs":
        """Connect to the cluster that this process runs on.

        Args:
            address: of the cluster, as Ray names it; None: RAY_ADDRESS, which a job has.

        Raises:
            ConfigError: there is none.
        """
        return cls(_connect(address, "cluster.address"), where="the cluster's dashboard")

    def all(self) -> list[Job]:
        """The jobs that this project submitted, the latest first."""
        found = [_job(details) for details in self._ask("listing jobs", self._client.list_jobs)]
        mine = [job for job in found if job is not None]
        return sorted(mine, key=lambda job: (job.submitted or LONG_AGO, job.id), reverse=True)

    def get(self, job: str) -> Job:
        """One job, by its id.

        Raises:
            AgileError: there is none, or it is not of this project.
        """
        found = _job(self._details(job))
        if found is None:
            raise AgileError(f"job {job}: agile-ray did not submit it; `ray job` shows and ends it")
        return found

    def environment(self, job: str) -> dict[str, object]:
        """The runtime environment of a job: its working folder and environment variables."""
        return dict(self._details(job).runtime_env or {})

    def submit(
        self,
        entrypoint: str,
        *,
        runtime_env: Mapping[str, object],
        metadata: Mapping[str, str],
        resources: Resources | None = None,
    ) -> str:
        """Start a job.

        Returns:
            Its id.

        Raises:
            AgileError: the cluster refuses it.
            DeadlineError: the cluster did not take it in time.
        """
        asked = resources or Resources()
        return self._ask(
            "handing the job over",
            lambda: self._client.submit_job(
                entrypoint=entrypoint,
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
                entrypoint_num_cpus=asked.cpus,
                entrypoint_num_gpus=asked.gpus,
                entrypoint_memory=asked.memory,
                entrypoint_resources=None if asked.custom is None else dict(asked.custom),
            ),
            limit_s=SEND_S,
        )

    def stop(self, job: str) -> None:
        """Send SIGTERM to a job; it ends later, and Ray kills it after `STOP_WAIT`."""
        self._ask(f"stopping job {job}", lambda: self._client.stop_job(job))

    def log(self, job: str) -> str:
        """What a job has printed so far."""
        return self._ask(f"reading the log of job {job}", lambda: self._client.get_job_logs(job))

    def follow(self, job: str) -> int:
        """Print a job's log until it ends.

        Returns:
            Its exit code.

        Raises:
            AgileError: the connection broke; the job continues.
            DeadlineError: the log has ended, the job has not.
        """
        return asyncio.run(self._follow(job))

    async def _follow(self, job: str) -> int:
        import aiohttp

        try:
            async for text in self._client.tail_job_logs(job):
                sys.stdout.write(text)
                sys.stdout.flush()
            return await asyncio.wait_for(self._exit_code(job), FINISH_S)
        except TimeoutError as error:
            raise DeadlineError(
                f"job {job}: its log ended {FINISH_S:.0f} s ago, but its status is not final"
            ) from error
        except (RuntimeError, aiohttp.ClientError) as error:
            raise AgileError(
                f"job {job}: the connection broke ({error}), the job continues; follow it with "
                f"`agile-ray logs {job} --follow`"
            ) from error

    async def _exit_code(self, job: str) -> int:
        while not (found := self.get(job)).ended:
            await asyncio.sleep(0.5)
        if found.state == "SUCCEEDED":
            return 0
        if found.exit_code is None:  # it never ran, or was stopped; otherwise its log says why
            print(f"job {job}: {found.state}: {found.message}", file=sys.stderr)
        return found.exit_code or 1

    def _details(self, job: str) -> "JobDetails":
        return self._ask(f"asking for job {job}", lambda: self._client.get_job_info(job))

    def _ask(self, what: str, function: Callable[[], Answer], *, limit_s: float = ANSWER_S) -> Answer:
        with _one_line(self._where, what):
            return within(limit_s, f"{self._where}: {what}", function)


def named(jobs: Sequence[Job], name: str) -> list[Job]:
    """The jobs with this name: those of a run or a sweep, the runs of that sweep, or one by its id or folder.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    found = [job for job in jobs if name in (job.id, job.run, job.folder)]
    if not found:
        names = dict.fromkeys(job.run for job in jobs)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
        there = f"the nearest are {', '.join(near)}" if near else "agile-ray has submitted none to it"
        raise ConfigError(f"{name}: no job of the cluster has this name, id or folder; {there}")
    sweeps = {job.folder for job in found if job.kind == "sweep"}
    return [job for job in jobs if job in found or job.sweep in sweeps]


def latest(jobs: Sequence[Job], name: str) -> Job:
    """The job with this name that has not ended, or else the latest.

    Args:
        jobs: the latest first.
        name: of a run or a sweep, its folder, or the id of a job.

    Raises:
        ConfigError: there is none, or several that have not ended are in different folders.
    """
    found = [job for job in named(jobs, name) if name in (job.id, job.run, job.folder)]
    live = [job for job in found if not job.ended]
    if len({job.folder for job in live}) > 1:
        listed = ", ".join(f"{job.id} in {job.folder}" for job in live)
        raise ConfigError(f"{name}: several runs of this name have not ended; name one by its id: {listed}")
    return (live or found)[0]


def in_folder(jobs: Sequence[Job], folder: Path) -> Job | None:
    """The job that has not ended and writes into a folder."""
    return next((job for job in jobs if not job.ended and job.folder == str(folder)), None)


def within(limit_s: float, call: str, function: Callable[[], Answer]) -> Answer:
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


def _connect(address: str | None, where: str) -> "JobSubmissionClient":
    from ray.job_submission import JobSubmissionClient

    with _one_line(where, "connecting"), _preferred(address):
        return within(CONNECT_S, f"{where}: connecting", lambda: JobSubmissionClient(address))


@contextmanager
def _preferred(address: str | None) -> Iterator[None]:
    """Make Ray's client take the address that it is given, whatever the environment says."""
    before = os.environ.get(PREFERRED)
    if address is not None:
        os.environ[PREFERRED] = address
    try:
        yield
    finally:
        os.environ.pop(PREFERRED, None)
        if before is not None:
            os.environ[PREFERRED] = before


@contextmanager
def _one_line(where: str, what: str) -> Iterator[None]:
    """Turn the errors of Ray's client into ours."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ConfigError(
            f"{where}: token refused; set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN"
        ) from error
    except ConnectionError as error:
        raise ConfigError(f"{where}: no Ray dashboard answers there ({error})") from error
    except (OSError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise AgileError(f"{where}: {what} failed ({said[:SHOWN_CHARACTERS]})") from error


def _job(details: "JobDetails") -> Job | None:
    """What a job's details say; None if this project did not submit it."""
    told = details.metadata or {}
    kind = told.get(KIND)
    if details.submission_id is None or kind not in ("run", "sweep"):
        return None
    return Job(
        id=details.submission_id,
        kind="sweep" if kind == "sweep" else "run",
        state=str(details.status.value),
        run=told.get("run", ""),
        folder=told.get("folder", ""),
        sweep=told.get("sweep", ""),
        config_hash=told.get("config_hash", ""),
        commit=told.get("commit", ""),
        submitted=_time(details.start_time),
        ended_at=_time(details.end_time),
        message=details.message or "",
        exit_code=details.driver_exit_code,
    )


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
