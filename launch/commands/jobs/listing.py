"""`agile-ray jobs`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from launch.commands.jobs.options import Address, dashboard

if TYPE_CHECKING:
    from launch.cluster.jobs import Job

SHOWN_ENDED = 20
COLUMNS = ("run", "state", "job", "submitted", "took", "folder")


def command(
    address: Address = None,
    every: Annotated[
        bool, typer.Option("--all", help=f"List all jobs that have ended, not only the latest {SHOWN_ENDED}.")
    ] = False,
) -> None:
    """List the trainings and sweeps of a cluster, the latest first.

    A job that agile-ray did not submit is not listed; `ray job list` lists all. For the progress of one, see
    `agile-ray status NAME --address URL`.

    Example: agile-ray jobs --address http://10.0.0.1:8265
    """
    where = dashboard(address, of="jobs")
    from launch.cluster.jobs import Jobs

    found = Jobs.at(where).all()
    ended = [job for job in found if job.ended]
    left_out = [] if every else ended[SHOWN_ENDED:]
    rows = [COLUMNS, *(_cells(job, datetime.now(UTC)) for job in found if job not in left_out)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found else (("no job",),):  # a table of rich's would cut ids and folders to the terminal
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())
    if left_out:
        print(f"{len(left_out)} earlier ones have ended; --all lists them")


def _cells(job: "Job", now: datetime) -> tuple[str, ...]:
    from launch.status.seen import duration

    age = "" if job.submitted is None else f"{duration((now - job.submitted).total_seconds())} ago"
    took = "" if job.submitted is None else duration(((job.ended_at or now) - job.submitted).total_seconds())
    code = "" if job.exit_code is None or job.state != "FAILED" else f" ({job.exit_code})"
    sweep = " (sweep)" if job.kind == "sweep" else ""
    return (f"{job.run}{sweep}", f"{job.state}{code}", job.id, age, took, job.folder)
