"""Trains the runs of a sweep and tabulates those that are finished."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from agile_ray.config_file import Spec
from agile_ray.errors import AgileError
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.json_files import write_json
from launch.border import interrupted
from launch.report import files, paired_runs, sweep_table
from launch.run.finished import check_resumable
from launch.run.lock import alone
from launch.run.stop import EXIT_CODE
from launch.run.sweep_plan import Job, pairs

STOP_S = 60.0
"""Longest wait for a training that was told to stop, seconds; it takes up to 20 (launch/run/stop.py)."""


def train(name: str, sheet: Spec, jobs: Sequence[Job]) -> None:
    """Train every run that is not finished, then show the table.

    Raises:
        ConfigError: another process trains in the sweep's folder, a finished run has another configuration, or, where
            the runs share a process, one can't start.
        AgileError: a run failed; the others were trained, and the table is written.
    """
    for job in jobs:
        if job.finished:
            check_resumable(job.config)
    with alone(SweepFolder(jobs[0].config.run.folder)):
        failed = _train(jobs, together=sheet.axes.together)
    show(name, sheet, jobs, failed=failed)
    if failed:
        raise AgileError(f"sweep {name}: {len(failed)} of {len(jobs)} runs failed: {', '.join(failed)}")


def show(name: str, sheet: Spec, jobs: Sequence[Job], *, failed: Sequence[str] = ()) -> None:
    """Print the table of the finished runs, and write it as sweep.json."""
    runs = [
        sweep_table.summarize(files.load(RunFolder.of(job.config)), group=job.group) for job in jobs if job.finished
    ]
    compared = paired_runs.compare(
        [
            paired_runs.RunPair(group=job.group, run=RunFolder.of(job.config), baseline=RunFolder.of(baseline.config))
            for job, baseline in (pairs(jobs, sheet.axes.compare) if sheet.axes.compare else ())
        ]
    )
    table = {
        "sweep": name,
        "rows": [asdict(run) for run in runs],
        "groups": [asdict(group) for group in sweep_table.groups(runs)],
        "compared": [asdict(one) for one in compared],
        "failed": list(failed),
    }
    write_json(SweepFolder(jobs[0].config.run.folder).table, table)
    sweep_table.show(runs)
    paired_runs.show(compared)


def _train(jobs: Sequence[Job], *, together: bool) -> list[str]:
    """Train every run that is not finished.

    Returns:
        The runs that failed, each with its exit code or error.
    """
    if not together:
        return [
            f"{job.config.run.name} (exit code {code})" for job in jobs if (code := _run(job, last=job is jobs[-1]))
        ]
    from launch.run.shared_machines import train_all

    return train_all([job.config for job in jobs])


def _wait_or_kill(child: "subprocess.Popen[bytes]") -> None:
    try:
        child.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _run(job: Job, *, last: bool) -> int:
    """Train in a process of its own.

    Returns:
        Its exit code; 0 if the run is finished already.

    Raises:
        SystemExit: SIGTERM came and was passed on; the training has ended.
    """
    if job.finished:
        print(f"{job.config.run.name}: finished", flush=True)
        return 0
    print(f"{job.config.run.name}: {shlex.join(['agile-ray', *job.words])}", flush=True)
    child: subprocess.Popen[bytes] | None = None
    stopped = told = False

    def stop(*_: object) -> None:  # never waits: child.wait() below holds the lock that a wait needs
        nonlocal stopped, told
        stopped = True
        if child:
            told = True
            child.terminate()  # the training makes a checkpoint first; a second time, it does not

    before = signal.signal(signal.SIGTERM, stop)  # before the child starts, or a signal in between would be lost
    try:
        child = subprocess.Popen([sys.executable, "-m", "launch.main", *job.words])
        if stopped and not told:  # the signal came while the child started
            child.terminate()
        code = child.wait()
    except KeyboardInterrupt:
        if child:
            child.terminate()  # at a terminal it has got the Ctrl-C too; another sender may have told the sweep alone
            _wait_or_kill(child)
        raise interrupted("finished runs are kept; run the same command again to go on") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if stopped and not (last and code == 0):
        raise SystemExit(EXIT_CODE)
    return code
