"""`agile-ray export`.

RUN/evaluation/NAME.parquet    read: the sessions of evaluations
RUN/segments/                  read: those of iterations
RUN/sft/, or the run's model   read: the tokenizer, except for parquet
FOLDER/                        written
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.paths import RunPath, as_path


class Form(StrEnum):
    """What to write."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    INSPECT = "inspect"


def command(
    run: RunPath,
    to: Annotated[Form, typer.Option("--to", help="What to write.")],
    output: Annotated[Path, typer.Option("--output", parser=as_path, metavar="FOLDER", help="Where to.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="An evaluation, or `training`; may be repeated. Default: all that is stored.",
        ),
    ] = None,
) -> None:
    """Write the sessions of a run for other programs.

    parquet: one flat row per session, in one file, for DuckDB, pandas and the like. jsonl: a session per line, with the
    text of its turns, what it read and paid, and who read from it. inspect: logs that `inspect view` opens.

    \b
    Examples:
      agile-ray export runs/quickstart --to parquet --output exported
      agile-ray export runs/quickstart --to inspect --source ppo --output logs
    """
    from agile_ray.errors import ConfigError
    from launch.view.export.files import WRITERS
    from launch.view.runs import Runs

    runs = Runs([run])
    name, *others = runs.names
    if others:
        raise ConfigError(f"{run}: must be the folder of one run, found a sweep; name one, such as {run / name}")
    sources = [runs.open(name, one) for one in source or runs.sources(name)]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output: {output} can't be a folder ({error.strerror}); choose another") from error
    for path in WRITERS[to](runs, sources, output):
        print(path)
