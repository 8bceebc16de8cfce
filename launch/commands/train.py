"""`agile-ray train`: imitation, then PPO, then the final comparison, in a folder that can be resumed.

teacher's sessions -> imitate -> SFT policy, frozen as reference -> evaluate it
                                  |
                                  v
             collect -> cut -> score -> credit -> learn -> publish   (agile_ray/loop.py)
                                  |
                                  v
             best on validation -> evaluate it -> compare with the reference policies -> report
"""

from typing import Annotated

import typer

from launch.run import shipped_configs
from launch.run.pipeline import train


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a shipped config, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as env.advice_cost=0.5.")
    ] = None,
) -> None:
    """Train an agent: imitation, PPO, evaluation, report.

    The same command with the same run.name resumes from the last whole checkpoint; SIGTERM makes one first.

    Example: agile-ray train quickstart env.advice_cost=0.5 run.name=dear
    """
    train(shipped_configs.read(config, overrides or ()))
