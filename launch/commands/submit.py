"""`agile-ray submit`. launch/cluster/job.py describes what runs where."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from agile_ray.errors import ConfigError
from launch.commands.paths import as_path

PROJECT = Path(__file__).resolve().parents[2]


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a shipped config, or a YAML file.")],
    address: Annotated[str, typer.Option(help="The cluster's dashboard, such as http://10.0.0.1:8265.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as run.folder=/mnt/runs.")
    ] = None,
    follow: Annotated[
        bool, typer.Option(help="Print the job's log until the job ends, then exit with its code.")
    ] = True,
    env_var: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Environment variable of all processes of the job; may be given several times."
        ),
    ] = None,
    project: Annotated[
        Path,
        typer.Option(
            parser=as_path,
            metavar="FOLDER",
            help="A checkout of this project.",
            show_default="the one that this command runs from",
        ),
    ] = PROJECT,
) -> None:
    """Train as a job of a Ray cluster.

    Installs this project into the job's working folder, starts the job and follows its log.

    Paths in the config must be absolute, on a disk that every node shares. Running the same command again resumes from
    the last complete checkpoint.

    On a cluster with token authentication, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token.

    \b
    Examples:
      agile-ray submit quickstart --address http://10.0.0.1:8265 run.folder=/mnt/runs model.path=/mnt/models/tiny
      agile-ray submit spec.yaml --address http://10.0.0.1:8265 --env-var NCCL_SOCKET_IFNAME=eth1
    """
    variables = _variables(env_var or ())
    from launch.cluster.address import check_shared
    from launch.run.shipped_configs import read

    resolved = read(config, overrides or ())
    check_shared(resolved)

    from launch.cluster.job import submit

    raise typer.Exit(submit(resolved, address=address, project=project, follow=follow, variables=variables))


def _variables(given: Sequence[str]) -> dict[str, str]:
    """Environment variables by name.

    Raises:
        ConfigError: one is not NAME=VALUE, or a name is given twice.
    """
    variables: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--env-var: must be NAME=VALUE, such as HF_HOME=/mnt/hf, found {pair}")
        if name in variables:
            raise ConfigError(f"--env-var {name}: given twice; leave one out")
        variables[name] = value
    return variables
