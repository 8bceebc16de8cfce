"""`agile-ray frontier`.

RUN/config.yaml, RUN/evaluation/    read
frontier.json                       written: into the folder of the sweep or run if one is given, or --output
"""

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.paths import as_path


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(parser=as_path, metavar="SWEEP|RUN...", help="Folders of a sweep or of finished runs."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=as_path,
            metavar="FILE",
            help="JSON file; default: frontier.json in a single folder.",
        ),
    ] = None,
) -> None:
    """Print what policies reach at each price, and how good that is over all prices.

    Runs that differ in seed and price alone share a frontier; so does one run whose episodes have several prices.
    Each policy has its asked share, accuracy and total at each price, and over all prices its hypervolume, the area
    under its deferral curve, and the asks that it needs for most of the oracle's gain (docs/report.md).

    \b
    Examples:
      agile-ray frontier runs/three_prices
      agile-ray frontier runs/price-0.1 runs/price-0.3 --output frontier.json
    """
    from agile_ray.record.folder import RunFolder, SweepFolder
    from agile_ray.record.json_files import write_json
    from launch.report.console import plain_console
    from launch.report.frontier.measure import frontiers
    from launch.report.frontier.results import find_runs, read_results
    from launch.report.frontier_table import show
    from launch.run.preflight import check_output

    if output is None and len(runs) == 1:
        output = SweepFolder(runs[0]).frontier  # a run's file has the same name
    if output is not None:
        check_output(output)
    found = frontiers(read_results(find_runs([RunFolder(path) for path in runs])))
    console = plain_console(width=260)
    for one in found:
        show(one, console)
    if output is not None:
        write_json(output, {"frontiers": [one.model_dump(mode="json") for one in found]})
        print(output)
