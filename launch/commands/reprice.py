"""`agile-ray reprice`.

RUN/segments/*.parquet      the sessions of each iteration          read
RUN/evaluation/*.parquet    those of each final evaluation          read
RUN/reprice-<price>.json                                            written
"""

from typing import Annotated

import typer

from agile_ray.errors import ConfigError
from agile_ray.units import thousandths
from launch.commands.paths import RunPath


def command(
    run: RunPath,
    advice_cost: Annotated[
        float, typer.Option(help="Price of one ask, from 0 to 1, in units of the reward for a right answer.")
    ],
) -> None:
    """Score a run's stored sessions at another price of advice.

    The sessions and their asks stay the same; only the bill changes. A policy trained at the other price would act
    differently: to see that, train with env.advice_cost.

    Example: agile-ray reprice runs/quickstart --advice-cost 0.5
    """
    if not 0 <= advice_cost <= 1:
        raise ConfigError(f"--advice-cost: a price must be between 0 and 1, found {advice_cost:g}")

    try:
        price = thousandths(advice_cost)
    except ValueError as error:
        raise ConfigError(f"--advice-cost: {error}") from error

    from agile_ray.record.folder import RunFolder
    from agile_ray.record.json_files import write_json
    from launch.report.console import plain_console
    from launch.report.repricing import metrics, reprice, show

    folder = RunFolder(run)
    found = reprice(folder, price=price)
    show(found, plain_console(), title=f"{run.name}: as paid, and at {price / 1000:g} for each ask")
    write_json(folder.repriced(price), {"advice_cost": price / 1000, **metrics(found)})
    print(folder.repriced(price))
