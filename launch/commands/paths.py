"""Paths on the command line: `~` is the home folder, also where no shell expands it, as in --output=~/x."""

from pathlib import Path
from typing import Annotated

import typer


def as_path(text: str) -> Path:
    """A path given as an argument or option.

    Raises:
        typer.BadParameter: it is empty, or begins with ~ and an unknown user.
    """
    if not text:
        raise typer.BadParameter("a path must not be empty")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{text}: {error}") from error


RunPath = Annotated[
    Path, typer.Argument(parser=as_path, metavar="RUN", help="Folder of a run; a copy elsewhere works too.")
]
