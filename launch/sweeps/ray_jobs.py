"""Trains runs of a sweep as jobs of the Ray cluster that this process runs on.

A job is found again by its metadata: folder of the run, folder of the sweep. So a sweep that was killed goes on with
the jobs that run, and starts no second one.
"""

import time
from collections.abc import Mapping, Sequence

from agile_ray.errors import AgileError
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.whole import write_whole
from launch.cluster.job import STOP_S, entrypoint, metadata, stoppable
from launch.cluster.jobs import Jobs, in_folder
from launch.run.sweep_plan import Job, flags
from launch.sweeps.scheduler import Ending, Started

SILENT_S = 300.0
"""How long the dashboard may leave a question about a job unanswered, seconds."""


class RayJobs:
    """Starts trainings as jobs."""

    poll_s = 2.0

    def __init__(self, jobs: Jobs, *, sweep: SweepFolder, runtime_env: Mapping[str, object], commit: str) -> None:
        """Prepare; nothing is started.

        Args:
            jobs: of the cluster.
            sweep: folder of the sweep, on a disk that every node shares.
            runtime_env: of every job: the working folder, and environment variables.
            commit: of the checkout that the working folder was built from.
        """
        variables = runtime_env.get("env_vars")
        given = {str(key): str(value) for key, value in variables.items()} if isinstance(variables, dict) else {}
        self._jobs = jobs
        self._sweep = sweep
        self._environment = {**runtime_env, "env_vars": {**given, **stoppable({}, STOP_S)}}
        self._commit = commit

    def found(self, jobs: Sequence[Job]) -> Mapping[str, Started]:
        """Jobs of these runs that have not ended."""
        there = self._jobs.all()
        found = {job.config.run.name: in_folder(there, job.config.run_folder) for job in jobs}
        return {name: _RayJob(self._jobs, job.id) for name, job in found.items() if job is not None}

    def start(self, job: Job) -> Started:
        """Submit a training; its configuration is written into the sweep's folder.

        A job that was handed over before, but whose id did not come back in time, is found instead.
        """
        config = job.config
        if (there := self.found([job]).get(config.run.name)) is not None:
            return there
        spec = self._sweep.spec(config.run.name)
        spec.parent.mkdir(parents=True, exist_ok=True)
        write_whole(spec, config.yaml().encode())
        id = self._jobs.submit(
            entrypoint("train", str(spec), *flags(job.track)),
            runtime_env=self._environment,
            metadata=metadata(
                "run", config.run.name, RunFolder.of(config).path, [config], commit=self._commit, sweep=self._sweep.path
            ),
        )
        print(f"{config.run.name}: job {id}", flush=True)
        return _RayJob(self._jobs, id)


class _RayJob:
    """A training that is a job."""

    def __init__(self, jobs: Jobs, id: str) -> None:
        self._jobs = jobs
        self._id = id
        self._answered_s = time.monotonic()

    @property
    def name(self) -> str:
        return f"job {self._id}"

    def ending(self) -> Ending | None:
        try:
            job = self._jobs.get(self._id)
        except AgileError:  # the dashboard is busy, or starts anew
            if time.monotonic() - self._answered_s > SILENT_S:
                raise
            return None
        self._answered_s = time.monotonic()
        return Ending(code=job.exit_code, asked=job.state == "STOPPED") if job.ended else None

    def stop(self) -> None:
        self._jobs.stop(self._id)

    def kill(self) -> None:
        """Ray kills it `STOP_WAIT` seconds after `stop`."""
