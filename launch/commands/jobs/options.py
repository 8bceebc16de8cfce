"""Options and arguments that commands about jobs share."""

from enum import StrEnum
from typing import Annotated

import typer

from agile_ray.errors import ConfigError

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's dashboard, such as http://10.0.0.1:8265.",
    ),
]
OnlyGivenAddress = Annotated[
    str | None,
    typer.Option("--address", metavar="URL", help="Dashboard of a cluster, such as http://10.0.0.1:8265."),
]
"""For commands that also work without a cluster: the environment must not change what they mean."""
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a run or a sweep; or its folder, or the id of a job.")
]


class Program(StrEnum):
    """What curves are written to while a training runs."""

    MLFLOW = "mlflow"
    WANDB = "wandb"


TRACK = "AGILE_TRACK"
"""Environment variable that has the names, with a blank between them; jobs are told by it."""
Track = Annotated[
    list[Program] | None,
    typer.Option(
        "--track",
        envvar=TRACK,
        metavar="mlflow|wandb",
        help="Also write the curves to MLflow or Weights & Biases while it trains; may be given several times.",
    ),
]


def told(track: list[Program] | None) -> dict[str, str]:
    """The environment variable that tells a job which programs to give its metrics; none without programs."""
    return {TRACK: " ".join(track)} if track else {}


def dashboard(address: str | None, *, of: str) -> str:
    """The address, which a command must have.

    Raises:
        ConfigError: neither the option nor the environment gives one.
    """
    if address is None:
        raise ConfigError(
            f"{of}: the cluster's dashboard is needed: give --address, such as http://10.0.0.1:8265, or set "
            "RAY_API_SERVER_ADDRESS"
        )
    return address
