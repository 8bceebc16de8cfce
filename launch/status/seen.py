"""What `agile-ray status` sees of a run: its progress, and whether the process that wrote it still lives."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from agile_ray.record.folder import RunFolder
from launch.status.progress_file import RunProgress, State, read

OLD_S = 600.0
"""Age of a running training's file from which on status calls it old, seconds."""
START_TOLERANCE_S = 2.0
"""Largest difference between two readings of when a process started, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One run, as one line of the table."""

    name: str
    state: str  # waiting, pending, starting, running, finished, stopped, failed, gone, old or unknown
    note: str  # in words: what is done now, or what to do
    ended: bool  # nothing will change unless somebody starts it
    progress: RunProgress | None


def look(run: RunFolder, *, now: datetime | None = None) -> Seen:
    """Look at a run's folder, which need not exist.

    Raises:
        ConfigError: its progress is not one of this version.
    """
    found = read(run)
    if found is None:
        if run.is_finished:
            return Seen(name=run.name, state="finished", note="", ended=True, progress=None)
        begun = run.config.is_file()
        note = "another version of agile-ray trains it, or did" if begun else ""
        return Seen(name=run.name, state="unknown" if begun else "waiting", note=note, ended=begun, progress=None)
    return judge(run.name, found, now or datetime.now(UTC))


def judge(name: str, found: RunProgress, now: datetime) -> Seen:
    """What the progress of a run says at this time."""
    age_s = (now - datetime.fromisoformat(found.updated)).total_seconds()
    state, note = _judged(found, age_s)
    return Seen(name=name, state=state, note=note, ended=state not in ("running", "old"), progress=found)


def _judged(found: RunProgress, age_s: float) -> tuple[str, str]:
    ago = f"updated {duration(age_s)} ago"
    where = f"process {found.pid} on {found.host}"
    match found.state:
        case State.FINISHED:
            return "finished", ""
        case State.STOPPED:
            return "stopped", f"{ago}; the same command resumes"
        case State.FAILED:
            return "failed", f"{found.error}; the same command resumes"
        case State.RUNNING:
            pass
    if found.host == socket.gethostname() and not _lives(found):
        return "gone", f"{where} is gone, {ago}; the same command resumes"
    if age_s > OLD_S:
        return "old", f"{ago}; see whether {where} still works"
    counted = f" {found.phase_done}/{found.phase_total}" if found.phase_total else ""
    return "running", f"{found.phase}{counted}, {ago}, {where}"


def _lives(found: RunProgress) -> bool:
    try:
        process = psutil.Process(found.pid)
        same = abs(process.create_time() - found.process_started) < START_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def cells(seen: Seen) -> tuple[str, ...]:
    """A run's cells in the table, in the order of COLUMNS."""
    found = seen.progress
    if found is None:
        return (seen.name, seen.state, "", "", "", "")
    metrics = found.metrics
    total, asked = metrics.get("total_score"), metrics.get("asked_share")
    return (
        seen.name,
        seen.state,
        f"{found.stage} {found.done}/{found.total}" if found.total else found.stage,
        "" if total is None else f"{total:.3f}",
        "" if asked is None else f"{asked:.3f}",
        "" if found.left_s is None or seen.ended else duration(found.left_s),
    )


COLUMNS = ("run", "state", "stage", "total", "asked", "left")


def summary(runs: Sequence[Seen]) -> str:
    """The runs in one line: how many are in which state."""
    counts = {seen.state: sum(other.state == seen.state for other in runs) for seen in runs}
    return f"{len(runs)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items())
