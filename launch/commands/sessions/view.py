"""`agile-ray view`.

RUN/evaluation/NAME.parquet    read: the sessions of evaluations
RUN/segments/                  read: those of iterations
RUN/sft/, or the run's model   read: the tokenizer
"""

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.paths import as_path


def command(
    folders: Annotated[
        list[Path], typer.Argument(parser=as_path, metavar="RUN|SWEEP...", help="Folders of runs and of sweeps.")
    ],
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Address to listen at. Another one than the default lets other machines read the runs, without a "
            "password.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0: any free port.")] = 8321,
) -> None:
    """Look at the sessions of runs in a browser, until Ctrl-C.

    A table of all sessions to filter, sort and search; one session token by token, with what the policy thought, paid
    and was credited; whose entries it read; the same question under two policies; memory along a stream. The address of
    a page names all that it shows. It loads nothing from the network, and only reads; runs may still be training.

    \b
    Examples:
      agile-ray view runs/quickstart
      agile-ray view runs/three_prices runs/quickstart --port 9000
    """
    from launch.view.runs import Runs
    from launch.view.server import serve

    serve(Runs(folders), host=host, port=port)
