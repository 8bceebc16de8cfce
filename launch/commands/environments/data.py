"""`agile-ray data`: checks a folder of data files and prints its counts beside the published ones."""

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.paths import as_path

WIDTH = 140
"""Of the table, characters."""


def command(
    environment: Annotated[str, typer.Argument(metavar="ENV", help="productqa, medmcqa or hotpotqa.")],
    folder: Annotated[Path, typer.Argument(parser=as_path, metavar="FOLDER", help="As in env.data.")],
) -> None:
    """Check a folder of data files, and print its counts beside the published ones.

    Names broken rows by file and line; the exit code is then 1.

    Example: agile-ray data productqa AGILE/data
    """
    from launch.report.console import plain_console
    from launch.report.data_counts import contents, show

    found = contents(environment, folder)
    show(found, plain_console(width=WIDTH, soft_wrap=True))
    if found.broken:
        raise typer.Exit(1)
