"""What `agile-ray status NAME --address URL` sees: jobs of a cluster, and the progress in the folders of their runs.

The folders are on a disk that the nodes share. Where this machine sees that disk, files are read here; otherwise the
cluster prints them, by a job of one shell command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from agile_ray.record.folder import RunFolder, SweepFolder
from launch.cluster.dashboard import Dashboard
from launch.cluster.jobs import Job, latest, named
from launch.status import progress_file, sweep_index
from launch.status.progress_file import RunProgress
from launch.status.seen import Seen, judge
from launch.status.sweep_index import Index


def look_at(jobs: Sequence[Job], name: str, dashboard: Dashboard, *, now: datetime | None = None) -> list[Seen]:
    """The runs of a name: one run, or every run of a sweep, those that have not begun included.

    Args:
        jobs: of the cluster, the latest first.
        name: of a run or a sweep, its folder, or the id of a job.
        dashboard: of the cluster.
        now: the time; None: that of the clock.

    Raises:
        ConfigError: no job has this name, or a file is not one of this version.
    """
    now = now or datetime.now(UTC)
    meant = latest(jobs, name)
    newest: dict[str, Job] = {}  # by the run's folder
    if meant.kind == "run":
        newest[meant.folder] = meant
    index = None
    if meant.kind == "sweep":
        for job in named(jobs, meant.folder):
            if job.sweep == meant.folder:
                newest.setdefault(job.folder, job)
        index = _index(meant.folder, dashboard)
    folders = list(newest)
    if index is not None:
        planned = [str(SweepFolder(Path(meant.folder)).run(run.run).path) for run in index.runs]
        folders = [*planned, *(folder for folder in folders if folder not in planned)]
    progress = _progress(folders, dashboard)
    if not folders:  # a sweep that is about to start
        return [_seen(meant.run, meant, None, None, now)]
    stated = {} if index is None else {run.run: run for run in index.runs}
    return [
        _seen(Path(folder).name, newest.get(folder), progress.get(folder), stated.get(Path(folder).name), now)
        for folder in folders
    ]


def _seen(
    name: str, job: Job | None, found: RunProgress | None, planned: sweep_index.IndexedRun | None, now: datetime
) -> Seen:
    """One run, from its job and its progress; either may be missing."""
    if found is not None and job is not None and not job.ended and _older(found, job):
        found = None  # of an earlier job of the run
    if found is None:
        if job is not None and not job.ended:
            state = "starting" if job.state == "RUNNING" else "pending"
            return Seen(name=name, state=state, note=f"job {job.id}", ended=False, progress=None)
        if job is not None:
            said = " ".join(job.message.split())[-200:]
            return Seen(name=name, state=job.state.lower(), note=f"job {job.id}: {said}", ended=True, progress=None)
        state = "waiting" if planned is None else planned.state
        note = "" if planned is None else planned.error
        return Seen(name=name, state=state, note=note, ended=state in ("failed", "stopped"), progress=None)
    seen = judge(name, found, now)
    if job is not None and job.ended and not seen.ended:
        code = "" if job.exit_code is None else f", exit code {job.exit_code}"
        note = f"job {job.id} has ended ({job.state}{code}); the same command resumes"
        return replace(seen, state="gone", note=note, ended=True)
    return seen


def _older(found: RunProgress, job: Job) -> bool:
    return job.submitted is not None and datetime.fromisoformat(found.updated) < job.submitted.replace(microsecond=0)


def _index(folder: str, dashboard: Dashboard) -> Index | None:
    path = str(SweepFolder(Path(folder)).index)
    content = _contents([path], dashboard).get(path)
    return None if content is None else sweep_index.parse(content, where=path)


def _progress(folders: Sequence[str], dashboard: Dashboard) -> dict[str, RunProgress]:
    paths = {str(RunFolder(Path(folder)).progress): folder for folder in folders}
    return {
        paths[path]: progress_file.parse(content, where=path)
        for path, content in _contents(list(paths), dashboard).items()
    }


def _contents(paths: Sequence[str], dashboard: Dashboard) -> Mapping[str, bytes]:
    """What is in those of the files that exist."""
    if not paths:
        return {}
    if dashboard.is_here and any(Path(path).parents[1].is_dir() for path in paths):  # no tunnel to another machine
        return {path: Path(path).read_bytes() for path in paths if Path(path).is_file()}
    return dashboard.contents(paths)
