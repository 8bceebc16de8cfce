"""`agile-ray status`. launch/status/on_cluster.py describes what it sees of a cluster's jobs.

RUN/progress.json           read; launch/status/progress_file.py says what it holds
RUN/config.yaml             read: whether the run has begun
RUN/report.json             read: whether it has finished
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.errors import ConfigError
from launch.commands.jobs.options import OnlyGivenAddress

if TYPE_CHECKING:
    from rich.console import Group

    from agile_ray.record.folder import RunFolder
    from launch.status.seen import Seen

FOLLOW_S = 2.0
"""Time between two looks, seconds."""
FOLLOW_CLUSTER_S = 15.0
"""The same of a cluster, where a look may be a job."""


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SWEEP",
            help="Folder of a run or a sweep; or a spec, by its name or as a YAML file; with --address, the name of a "
            "run or a sweep that is a job.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Overrides of a spec, as it was started with: run.folder=/mnt/runs."),
    ] = None,
    address: OnlyGivenAddress = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Look again and again until every run has ended.")
    ] = False,
) -> None:
    """Show where a run is, or every run of a sweep: stage, score, time left.

    Reads progress.json in the folder of each run, which a script can read too: stage, done, total, left_s, metrics,
    pid, host. Says so if the process of a run is gone, or if its file has not changed for ten minutes. Given a spec,
    it also lists the runs that have not started. With --address it asks the cluster, which reads the folders for it.

    \b
    Examples:
      agile-ray status runs/quickstart
      agile-ray status runs/prices --follow
      agile-ray status prices run.folder=/mnt/runs
      agile-ray status prices --follow --address http://10.0.0.1:8265
    """
    look = _on_cluster(target, overrides or (), address) if address else _here(target, overrides or ())
    from launch.report.console import plain_console
    from launch.status.seen import summary

    console = plain_console(soft_wrap=True)
    if not follow:
        console.print(_view(look()))
        return
    from rich.live import Live

    shown = ""
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            seen = look()
            if console.is_terminal:
                live.update(_view(seen), refresh=True)
            elif (text := summary(seen)) != shown:
                console.print(shown := text)
            if all(one.ended for one in seen):
                return
            time.sleep(FOLLOW_CLUSTER_S if address else FOLLOW_S)


def _here(target: str, overrides: "Sequence[str]") -> "Callable[[], list[Seen]]":
    """What looks at folders."""
    from launch.status.seen import look

    folders = _folders(target, overrides)
    return lambda: [look(folder) for folder in folders]


def _on_cluster(target: str, overrides: "Sequence[str]", address: str) -> "Callable[[], list[Seen]]":
    """What looks at jobs."""
    if overrides:
        raise ConfigError(f"status {target}: overrides are those of a spec, and --address takes a name; leave them out")
    from launch.cluster.dashboard import Dashboard
    from launch.cluster.jobs import Jobs
    from launch.status.on_cluster import look_at

    jobs, dashboard = Jobs.at(address), Dashboard(address)
    return lambda: look_at(jobs.all(), target, dashboard)


def _folders(target: str, overrides: "Sequence[str]") -> "list[RunFolder]":
    """The folders of the runs that are meant, those that do not exist included.

    Raises:
        ConfigError: it is neither a folder with runs nor a spec.
    """
    from agile_ray.record.folder import RunFolder, SweepFolder
    from launch.status.sweep_index import read

    path = Path(target).expanduser()
    if path.is_dir():
        if overrides:
            raise ConfigError(f"status {target}: overrides are those of a spec, found a folder; leave them out")
        run = RunFolder(path.resolve())
        if run.config.is_file() or run.progress.is_file():
            return [run]
        sweep = SweepFolder(path.resolve())
        if (index := read(sweep)) is not None:
            return [sweep.run(run.run) for run in index.runs]
        if runs := sweep.runs():
            return runs
        raise ConfigError(
            f"status {target}: a folder of a run holds config.yaml, and that of a sweep such folders, found none"
        )
    from launch.run.shipped_configs import spec
    from launch.run.sweep_plan import plan

    read = spec(target)
    if not read.axes.vary:
        return [RunFolder.of(read.resolve(overrides))]
    return [RunFolder.of(job.config) for job in plan(read.path, read, overrides)]


def _view(runs: "list[Seen]") -> "Group":
    """The table, and below it what there is to say about runs that have begun and are not finished."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from launch.status.seen import COLUMNS, cells, summary

    table = Table(title=summary(runs) if len(runs) > 1 else None)
    for name in COLUMNS:
        right = name in ("total", "asked", "left")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for seen in runs:
        table.add_row(*cells(seen))
    return Group(table, *(Text(f"{seen.name}: {seen.note}") for seen in runs if seen.note))
