"""Trains the runs of a sweep and tabulates those that are finished.

without --parallel          one run after the other; in one process if the spec says `together: true`
--parallel N                up to N runs at once, each in a process of its own with a Ray cluster of its own
the same within a cluster   the runs are jobs of the cluster; `agile-ray sweep --address` starts it there
"""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

from agile_ray.config_file import Spec
from agile_ray.errors import AgileError
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.json_files import write_json
from launch.border import interrupted
from launch.cluster.address import joins
from launch.cluster.job import commit_of, packaged
from launch.cluster.jobs import Jobs, in_folder
from launch.cluster.package import INSTALLED
from launch.report import files, paired_runs, sweep_table
from launch.run.finished import check_resumable
from launch.run.lock import alone
from launch.run.stop import EXIT_CODE
from launch.run.sweep_plan import Job, pairs
from launch.status import sweep_index
from launch.status.sweep_index import Index, IndexedRun
from launch.sweeps.processes import Processes
from launch.sweeps.ray_jobs import RayJobs
from launch.sweeps.scheduler import Entry, Scheduler, Workers

RETRIES = 3
"""How often a run is started again, where what failed is not its own."""


def train(name: str, sheet: Spec, jobs: Sequence[Job], *, parallel: int | None = None, retries: int = RETRIES) -> None:
    """Train every run that is not finished, then show the table.

    Args:
        name: of the sweep.
        sheet: its spec.
        jobs: its runs.
        parallel: how many run at once, each in a process or a job of its own; None: one, or all in one process if the
            spec says so.
        retries: how often a run is started again, where what failed is not its own.

    Raises:
        ConfigError: another process trains in the sweep's folder, a finished run has another configuration, or, where
            the runs share a process, one can't start.
        AgileError: a run failed; the others were trained, and the table is written.
        SystemExit: SIGTERM came and was passed on; the trainings have ended.
    """
    for job in jobs:
        if job.finished:
            check_resumable(job.config)
    with alone(SweepFolder(jobs[0].config.run.folder)):
        if sheet.axes.together and parallel is None:
            from launch.run.shared_machines import train_all

            failed = train_all([job.config for job in jobs], ignores=sheet.axes.imitation_ignores, track=jobs[0].track)
        else:
            failed = _train(name, sheet, jobs, parallel=parallel, retries=retries)
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


def _train(name: str, sheet: Spec, jobs: Sequence[Job], *, parallel: int | None, retries: int) -> list[str]:
    """Train every run in a process or a job of its own.

    Returns:
        The runs that failed, each with the reason.
    """
    folder = SweepFolder(jobs[0].config.run.folder)
    at_once = parallel or 1
    before = sweep_index.read(folder)
    adopted = {} if before is None else {run.run: run.imitation for run in before.runs}

    def keep_index(entries: Sequence[Entry]) -> None:
        sweep_index.write(folder, _index(entries, name=name, parallel=at_once, adopted=adopted))

    with ExitStack() as stack, _sigterm() as stopping:
        scheduler = Scheduler(
            jobs,
            _workers(stack, folder, jobs, parallel),
            parallel=at_once,
            retries=retries,
            ignores=sheet.axes.imitation_ignores,
            changed=keep_index,
        )
        try:
            failed = scheduler.run(stopping)
        except KeyboardInterrupt:
            raise interrupted("finished runs are kept; run the same command again to go on") from None
        if stopping() and not all(job.finished for job in jobs):
            raise SystemExit(EXIT_CODE)
    return failed


def _workers(stack: ExitStack, folder: SweepFolder, jobs: Sequence[Job], parallel: int | None) -> Workers:
    """Processes of this machine, or jobs of the cluster that this process runs on."""
    cluster = jobs[0].config.cluster
    if parallel is None or not joins(cluster):
        return Processes(apart=(parallel or 1) > 1)
    there = Jobs.here(cluster.address)
    own = in_folder(there.all(), folder.path)
    if own is not None:  # this process is a job, and its working folder has what the runs need
        return RayJobs(there, sweep=folder, runtime_env=there.environment(own.id), commit=own.commit)
    package, _ = stack.enter_context(packaged(INSTALLED, [job.config for job in jobs]))
    return RayJobs(there, sweep=folder, runtime_env={"working_dir": str(package)}, commit=commit_of(INSTALLED))


def _index(entries: Sequence[Entry], *, name: str, parallel: int, adopted: Mapping[str, str]) -> Index:
    return Index(
        sweep=name,
        parallel=parallel,
        updated=datetime.now(UTC).isoformat(timespec="seconds"),
        runs=tuple(
            IndexedRun(
                run=entry.name,
                state=entry.state,
                overrides=entry.job.overrides,
                job="" if entry.started is None else entry.started.name,
                starts=entry.starts,
                imitation=entry.imitation or adopted.get(entry.name, ""),
                error=entry.error,
            )
            for entry in entries
        ),
    )


@contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM during the block; the yielded function says whether it came."""
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        asked = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, before)
