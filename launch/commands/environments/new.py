"""`agile-ray new`: writes the files that something of one's own begins with."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Write the files that an environment of one's own begins with.")


@app.command("environment")
def environment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the module, such as trivia.")],
) -> None:
    """Write NAME.py, NAME.yaml and test_NAME.py into the working folder: an environment that works, to be changed.

    Example: agile-ray new environment NAME
    """
    from launch.extend.template import write_environment

    for path in write_environment(name, Path()):
        print(path)
    print(f"next: agile-ray check {name}.yaml; the head of {name}.yaml shows how to train")


@app.callback()
def _group() -> None:
    """Keep `environment` a word of the command line, although it is the only one."""
