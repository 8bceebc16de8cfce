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

from agile_ray.record import provenance
from launch.report import page
from launch.report.files import HTML, JSON, _replace, compose, load, write
from launch.report.tables import show


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, wherever it was copied to.")],
) -> None:
    """Print a run's results and rewrite its page.

    Example: agile-ray report runs/quickstart
    """
    found = compose(run) if (run / provenance.CONFIG_FILE).is_file() else load(run)
    if (run / JSON).is_file():
        write(run, found)
    else:
        _replace(run / HTML, page.render(found).encode())
    show(found, Console())
    print(f"{run / HTML}")
