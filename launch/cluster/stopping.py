"""Ends jobs politely, by the name of their run or sweep.

SIGTERM                 the training ends after the step or iteration that it is in, with a checkpoint
6 s later               it is interrupted, and ends its engines (launch/run/stop.py)
30 s after SIGTERM      Ray kills what is left: `submit` sets RAY_JOB_STOP_WAIT_TIME_S of the job
"""

import re
import time
from collections.abc import Callable

from agile_ray.errors import AgileError, ConfigError, DeadlineError
from launch.cluster.jobs import Job, Jobs, latest, named

SAID = re.compile(r"\d+\.\d min  ")
"""How a training begins its lines (launch/run/progress.py)."""
LOOK_S = 0.5
"""Time between two looks at jobs that end, seconds."""


def stop(
    jobs: Jobs,
    name: str,
    *,
    wait_s: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask the jobs of a name to end, and wait for it.

    Args:
        jobs: of the cluster.
        name: of a run or a sweep, its folder, or the id of a job.
        wait_s: longest wait, seconds; 0: none.
        monotonic: seconds since any fixed moment.
        sleep: waits for so many seconds.

    Raises:
        ConfigError: no job has this name, or none of them runs.
        DeadlineError: a job has not ended in time.
    """
    left = _to_end(jobs.all(), name)
    if not left:
        raise ConfigError(f"{name}: its job has ended; nothing is to be stopped")
    for job in left:
        jobs.stop(job.id)
        print(f"job {job.id}: {job.run} is asked to end", flush=True)
    begin = monotonic()
    while wait_s and left:
        if monotonic() - begin > wait_s:
            listed = ", ".join(f"{job.id} ({job.run}, {job.state})" for job in left)
            raise DeadlineError(f"stop: the jobs must end within {wait_s:g} s, but these have not: {listed}")
        sleep(LOOK_S)
        states = [jobs.get(job.id) for job in left]
        for job in states:
            if job.ended:
                print(
                    f"job {job.id}: {job.run} ended after {monotonic() - begin:.0f} s: {_last_line(jobs, job)}",
                    flush=True,
                )
        left = [job for job in states if not job.ended]


def _to_end(jobs: list[Job], name: str) -> list[Job]:
    """The jobs to stop: the one that is meant; of a sweep, first its own, then its runs."""
    meant = latest(jobs, name)
    of_sweep = [job for job in named(jobs, meant.folder) if job.sweep] if meant.kind == "sweep" else []
    return [job for job in (meant, *of_sweep) if not job.ended]


def _last_line(jobs: Jobs, job: Job) -> str:
    """What the run said last: from where it will go on. Libraries may print more when its process ends."""
    try:
        lines = [line.strip() for line in jobs.log(job.id).splitlines() if line.strip()]
    except AgileError:
        lines = []
    said = [line for line in lines if SAID.match(line)] or lines
    return said[-1] if said else job.state
