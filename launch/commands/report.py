"""`agile-ray report`: tables and pictures of a run, from what lies in its folder.

run folder/
    config.yaml  run.json  history.jsonl    read
    segments/  abandoned.jsonl              read: every report checks the books again
    evaluation/<entry>.parquet              read: one for each policy of the final evaluation
    report.json                             written once `ppo` is evaluated: its presence means a finished run
    report.html                             written always
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agile_ray.record.folder import RunFolder
from launch.report.files import compose, load, write, write_page
from launch.report.tables import show


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, wherever it was copied to.")],
) -> None:
    """Print a run's results and rewrite its page.

    Example: agile-ray report runs/quickstart
    """
    folder = RunFolder(run)
    found = compose(folder) if folder.config.is_file() else load(folder)
    if folder.is_finished:
        write(folder, found)
    else:
        write_page(folder, found)
    show(found, Console())
    print(folder.report_page)
