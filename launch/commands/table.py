"""`agile-ray table`: our results beside the paper's.

RUN/config.yaml, RUN/evaluation/       read
FILE                                   read: what `agile-ray evaluate --output FILE` wrote
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.errors import ConfigError
from launch.commands.paths import as_path

if TYPE_CHECKING:
    from agile_ray.config import RunConfig
    from launch.report.paper.table import Row, Single
    from launch.report.summary import Report

TASKS = ("productqa",)
WIDTH = 160  # characters; wider than the table
LEFT = ("price", "whose", "policy", "beside")


def command(
    task: Annotated[str, typer.Argument(metavar="TASK", help=f"One of: {', '.join(TASKS)}.")],
    runs: Annotated[list[Path], typer.Argument(parser=as_path, metavar="RUN", help="Folders of finished runs.")],
    score: Annotated[
        list[Path] | None,
        typer.Option(
            parser=as_path,
            metavar="FILE",
            help="What `evaluate --output FILE` wrote of a prompted policy, of a guided one, or of a checkpoint at "
            "another price. May be given several times.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", parser=as_path, metavar="FILE", help="JSON file for the rows.")
    ] = None,
) -> None:
    """Print finished runs beside the tables of the paper.

    Main results, ablations (runs with agent.bar) and prices, each with the number of sessions and the interval of the
    total. The paper's lines are its own numbers.

    Example: agile-ray table productqa runs/productqa runs/no-memory
    """
    if task not in TASKS:
        raise ConfigError(f"table: a task is one of {', '.join(TASKS)}, found {task}")
    from dataclasses import asdict

    from agile_ray.record.json_files import write_json
    from launch.report.paper.table import NOTE, TITLES, rows
    from launch.run.preflight import check_output

    if output is not None:
        check_output(output)
    found = rows([_read(run, task) for run in runs], [_read_score(path) for path in score or ()])
    for number, title in TITLES.items():
        _show([row for row in found if row.table == number], title)
    print(NOTE)
    if output is not None:
        write_json(output, {"rows": [asdict(row) for row in found]})


def _read(run: Path, task: str) -> "tuple[RunConfig, Report]":
    from agile_ray import config_file
    from agile_ray.record.folder import RunFolder
    from launch.report.files import load

    folder = RunFolder(run)
    report = load(folder)
    if report.environment != task:
        raise ConfigError(f"{run}: must be a run on {task}, found {report.environment}")
    return config_file.load(folder.config), report


def _read_score(path: Path) -> "Single":
    import json

    from pydantic import TypeAdapter

    from agile_ray.evaluation.score import Score
    from launch.report.paper.table import Single

    try:
        found = json.loads(path.read_bytes())
        costs = found["advice_cost"]
        return Single(
            policy=found["policy"],
            name=" ".join([found["policy"], *([found["model"]] if "model" in found else [])]),
            prices=tuple(costs) if isinstance(costs, list) else (costs,),
            score=TypeAdapter(Score).validate_python(
                {key: value for key, value in found.items() if key in Score.__dataclass_fields__}
            ),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"--score {path}: must be what `agile-ray evaluate --output` wrote: {said}") from error


def _show(found: "list[Row]", title: str) -> None:
    from launch.report import wording
    from launch.report.console import plain_console
    from launch.report.plain_table import plain_table

    table = plain_table(*LEFT, "asked", "right", "total", "95 % interval", "n", left=LEFT)
    for row in found:
        ours = row.whose == "ours"
        table.add_row(
            f"{row.price:g}",
            row.whose,
            row.name,
            row.beside if ours else "",
            "" if row.asked_share is None else f"{row.asked_share:.3f}",
            f"{row.accuracy:.3f}",
            "" if row.total is None else f"{row.total:.3f}",
            "" if row.ci95 is None else wording.interval(row.ci95),
            "" if row.sessions is None else f"{row.sessions:,}",
        )
    console = plain_console(width=WIDTH)
    console.print(title)
    console.print(table)
    console.print()
