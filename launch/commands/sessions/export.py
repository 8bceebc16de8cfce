"""`agile-ray export`.

RUN/evaluation/NAME.parquet    read: the sessions of evaluations
RUN/segments/                  read: those of iterations
RUN/sft/, or the run's model   read: the tokenizer, except for parquet
RUN/history.jsonl              read: metrics, for mlflow and wandb
FOLDER/                        written
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
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
    MLFLOW = "mlflow"
    WANDB = "wandb"


def command(
    run: RunPath,
    to: Annotated[Form, typer.Option("--to", help="What to write.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            parser=as_path,
            metavar="FOLDER",
            help="Where to. mlflow and wandb write to the server of their own settings, if it is left out.",
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="An evaluation, or `training`; may be repeated. Default: all that is stored.",
        ),
    ] = None,
) -> None:
    """Write the sessions or the metrics of a run for other programs.

    parquet: one flat row per session, in one file, for DuckDB, pandas and the like. jsonl: a session per line, with the
    text of its turns, what it read and paid, and who read from it. inspect: logs that `inspect view` opens. mlflow,
    wandb: the curves of TensorBoard, for MLflow and for Weights & Biases.

    \b
    Examples:
      agile-ray export runs/quickstart --to parquet --output exported
      agile-ray export runs/quickstart --to inspect --source ppo --output logs
      agile-ray export runs/quickstart --to mlflow --output curves
    """
    from agile_ray.errors import ConfigError
    from agile_ray.record.folder import RunFolder
    from agile_ray.record.tracking.programs import PROGRAMS
    from launch.view.export import metrics
    from launch.view.export.files import WRITERS
    from launch.view.runs import Runs

    runs = Runs([run])
    name, *others = runs.names
    if others:
        raise ConfigError(f"{run}: must be the folder of one run, found a sweep; name one, such as {run / name}")
    if to in PROGRAMS:
        if source:
            raise ConfigError(f"--source: chooses sessions, but {to} takes metrics, of the whole run; leave it out")
        with nullcontext() if output is None else _made(output):
            for place in metrics.write(RunFolder(run), to, output):
                print(place)
        return
    if output is None:
        raise ConfigError(f"--output: {to} is written into a folder, found none; give one")
    sources = [runs.open(name, one) for one in source or runs.sources(name)]
    with _made(output):
        for path in WRITERS[to](runs, sources, output):
            print(path)


@contextmanager
def _made(output: Path) -> Iterator[None]:
    """Make a folder. If the block fails and has written nothing, what was made is removed."""
    from agile_ray.errors import ConfigError

    missing = [path for path in (output, *output.parents) if not path.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output: {output} can't be a folder ({error.strerror}); choose another") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):  # something was written
            for path in missing:
                path.rmdir()
        raise
