"""`agile-ray train`."""

from typing import Annotated

import typer

from launch.commands.jobs.options import Track


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a shipped config, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as env.advice_cost=0.5.")
    ] = None,
    track: Track = None,
) -> None:
    """Train an agent: imitation, PPO, final evaluation, report.

    The run's folder is runs/NAME, with NAME from run.name. Running the same command again resumes from the last
    complete checkpoint. SIGTERM ends the training within 20 seconds, with exit code 143 if it is not finished.

    With --track, its curves are also in MLflow or Weights & Biases while it trains, at the server that
    MLFLOW_TRACKING_URI or WANDB_API_KEY is for, or else in files of the run's folder.

    \b
    Examples:
      agile-ray train quickstart
      agile-ray train quickstart env.advice_cost=0.5 run.name=price-0.5
      agile-ray train quickstart --track mlflow
    """
    from launch.run import shipped_configs

    chosen = shipped_configs.read(config, overrides or ())

    from launch.run.pipeline import train

    train(chosen, track=track or ())
