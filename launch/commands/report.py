"""`agile-ray report`.

run folder/
    config.yaml  run.json  history.jsonl    read
    segments/  abandoned.jsonl              read: every report audits the books
    evaluation/<entry>.parquet              read: one per policy of the final evaluation
    report.html                             always written
    report.json                             written by a training that finishes, and rewritten here if it exists

sweep folder/
    RUN/report.json  RUN/evaluation/        read, of every finished run
    sweep.json                              read, if it is there
    report.html                             written
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.commands.paths import as_path

if TYPE_CHECKING:
    from agile_ray.record.folder import SweepFolder


def command(
    run: Annotated[
        Path,
        typer.Argument(
            parser=as_path, metavar="RUN|SWEEP", help="Folder of a run or of a sweep; a copy elsewhere works too."
        ),
    ],
) -> None:
    """Print the results of a run or a sweep, and write its page, report.html.

    Works while the run is training, and after it. The page of a sweep shows its finished runs, and their frontier.

    \b
    Examples:
      agile-ray report runs/quickstart
      agile-ray report runs/three_prices
    """
    from agile_ray.record.folder import RunFolder, SweepFolder
    from launch.report.console import plain_console
    from launch.report.files import compose, load, write, write_page
    from launch.report.tables import show

    folder, sweep = RunFolder(run), SweepFolder(run)
    is_run = folder.config.is_file() or folder.is_finished
    if not is_run and sweep.finished_runs():
        _report_sweep(sweep)
        return
    found = compose(folder) if folder.config.is_file() else load(folder)
    if folder.is_finished:
        write(folder, found)
    else:
        write_page(folder, found)
    show(found, plain_console())
    print(folder.report_page)


def _report_sweep(sweep: "SweepFolder") -> None:
    from launch.report.console import plain_console
    from launch.report.files import write_sweep_page
    from launch.report.frontier_table import show

    for one in write_sweep_page(sweep):
        show(one, plain_console(width=260))
    print(sweep.report_page)
