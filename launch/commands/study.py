"""`agile-ray study`: analyses of finished sweeps. Nothing is trained, and no engine starts."""

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.paths import as_path

app = typer.Typer(no_args_is_help=True, help="Analyse the runs of a sweep. Nothing is trained.")


def _runs(sweep: str) -> typer.models.ArgumentInfo:
    return typer.Argument(parser=as_path, metavar="FOLDER", help=f"Folder of the runs of `agile-ray sweep {sweep}`.")


@app.command()
def shop(
    prices: Annotated[
        list[float] | None,
        typer.Argument(metavar="PRICE", help="Prices of one ask, from 0 to 1.", show_default="0.3 0.5 0.9"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 0.")] = 3,
    runs: Annotated[
        Path, typer.Option(parser=as_path, metavar="FOLDER", help="Folder of a sweep's runs on the shop.")
    ] = Path("runs/credit"),
    compare: Annotated[
        str, typer.Option(metavar="KEY=VALUE", help="Key in which runs differ, and its value in the baseline.")
    ] = "credit.mode=heuristic",
) -> None:
    """Compare credit modes on the shop, without the luck of guesses.

    The first table shows what each mode can gain: the expected total of the best asking rule for the reward that the
    mode trains on. A guess counts at its probability of being right, which the shop knows.

    The tables after it show what trained runs gained: the finished runs in the folder of --runs, scored the same way
    and compared with the baseline on the same questions. "to ask, guessed" is the share of guesses among the questions
    where the best rule asks. "to guess, asked" is the share of asks among the questions where it guesses.

    \b
    Examples:
      agile-ray study shop
      agile-ray study shop 0.7 0.8 --seeds 5
      agile-ray study shop 0.1 0.3 --runs runs/priors --compare imitation.asking=judgement
    """
    from launch.report.compared_key import parse

    compared = parse(compare)

    from launch.studies.shop_runs import report

    report(prices or [0.3, 0.5, 0.9], seeds=seeds, runs=runs, compare=compared)


@app.command("credit_worth")
def credit_worth(
    runs: Annotated[Path, _runs("credit")] = Path("runs/credit"),
    last: Annotated[int, typer.Option(min=1, help="Iterations of each run, counted from its end.")] = 4,
) -> None:
    """Compare the credit of asks on the shop with their worth.

    Covers the sessions whose answer memory lacked, with a line for each price, credit mode and range of the probability
    that a guess is right. "credited" is the mean credit of an ask, "worth" the mean of what its answer was worth to
    later sessions.

    \b
    Examples:
      agile-ray study credit_worth
      agile-ray study credit_worth /data/runs/credit --last 8
    """
    from launch.studies.credit_worth import report

    report(runs, last=last)


@app.command("three_prices")
def three_prices(runs: Annotated[Path, _runs("three_prices")] = Path("runs/three_prices")) -> None:
    """Compare asked shares on the toy with their optimum.

    Also writes FOLDER/table.json.

    Example: agile-ray study three_prices
    """
    from agile_ray.record.folder import SweepFolder
    from launch.studies.three_prices import report

    report(SweepFolder(runs))


@app.command()
def stability(runs: Annotated[Path, _runs("stability")] = Path("runs/stability")) -> None:
    """Compare how steady PPO is under each setting of a sweep.

    Also writes FOLDER/table.json.

    Example: agile-ray study stability
    """
    from agile_ray.record.folder import SweepFolder
    from launch.studies.stability import report

    report(SweepFolder(runs))
