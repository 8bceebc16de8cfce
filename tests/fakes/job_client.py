"""Ray's job client without a cluster: it keeps jobs in memory and answers with Ray's own types."""

import threading
from dataclasses import dataclass, field

from ray.job_submission import JobDetails, JobStatus, JobType

from launch.cluster.jobs import KIND


@dataclass
class FakeJob:
    id: str
    metadata: dict
    entrypoint: str = "agile-ray train x"
    runtime_env: dict = field(default_factory=dict)
    resources: dict = field(default_factory=dict)
    status: JobStatus = JobStatus.RUNNING
    exit_code: int | None = None
    start: int = 0
    log: str = ""
    stops_after: int = 0  # looks until it has ended, once it is asked to
    asked: bool = False

    def details(self):
        if self.asked and not self.status.is_terminal():
            self.stops_after -= 1
            if self.stops_after < 0:
                self.status = JobStatus.STOPPED
        return JobDetails(
            type=JobType.SUBMISSION,
            submission_id=self.id,
            status=self.status,
            entrypoint=self.entrypoint,
            metadata=self.metadata,
            runtime_env=self.runtime_env,
            start_time=self.start,
            driver_exit_code=self.exit_code,
        )


class FakeClient:
    """What `launch.cluster.jobs` calls of `JobSubmissionClient`."""

    def __init__(self, *jobs):
        self.jobs = {job.id: job for job in jobs}
        self.silent = False  # never answers
        self.fails = None  # an error that each call raises

    def submit_job(self, *, entrypoint, runtime_env, metadata, **resources):
        self._answer()
        id = f"raysubmit_{len(self.jobs)}"
        self.jobs[id] = FakeJob(
            id, metadata, entrypoint=entrypoint, runtime_env=runtime_env, resources=resources, start=len(self.jobs) + 1
        )
        return id

    def list_jobs(self):
        self._answer()
        driver = JobDetails(type=JobType.DRIVER, job_id="01000000", status=JobStatus.RUNNING, entrypoint="python x.py")
        return [driver, *(job.details() for job in self.jobs.values())]

    def get_job_info(self, id):
        self._answer()
        if id not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {id} does not exist.")
        return self.jobs[id].details()

    def stop_job(self, id):
        self._answer()
        self.jobs[id].asked = True
        return True

    def get_job_logs(self, id):
        self._answer()
        return self.jobs[id].log

    async def tail_job_logs(self, id):
        yield self.jobs[id].log

    def _answer(self):
        if self.silent:
            threading.Event().wait(30)
        if self.fails is not None:
            raise self.fails


def job(id, run, *, kind="run", sweep="", folder=None, **more):
    told = {KIND: kind, "run": run, "folder": folder or f"/mnt/runs/{run}", "sweep": sweep, "config_hash": "c0ffee"}
    return FakeJob(id, told, **more)
