"""`agile-ray report`.

run folder/
    config.yaml  run.json  history.jsonl    read
    segments/  abandoned.jsonl              read: every report audits the books
    evaluation/<entry>.parquet              read: one per policy of the final evaluation
    report.html                             always written
    report.json                             written by a training that finishes, and rewritten here if it exists
"""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run; a copy elsewhere works too.")],
) -> None:
    """Print a run's results and write its page, report.html.

    Works while the run is training, and after it.

    Example: agile-ray report runs/quickstart
    """
    from rich.console import Console

    from agile_ray.record import provenance
    from launch.report import page
    from launch.report.files import HTML, JSON, _replace, compose, load, write
    from launch.report.tables import show

    found = compose(run) if (run / provenance.CONFIG_FILE).is_file() else load(run)
    if (run / JSON).is_file():
        write(run, found)
    else:
        _replace(run / HTML, page.render(found).encode())
    show(found, Console())
    print(f"{run / HTML}")
