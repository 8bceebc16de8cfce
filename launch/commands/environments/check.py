"""`agile-ray check`: plays an environment without engine or Ray, and says what is wrong with it."""

from typing import Annotated

import typer


def command(
    environment: Annotated[
        str, typer.Argument(metavar="ENV|CONFIG", help="A config, or an environment: a name, or package.module:name.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as env.data=questions.csv.")
    ] = None,
) -> None:
    """Look for faults of an environment: as a test does, before a training.

    Errors end with code 1, warnings do not.

    \b
    Examples:
      agile-ray check quickstart
      agile-ray check recurring
    """
    from agile_ray.config import RunConfig
    from agile_ray.config_file import overridden
    from launch.extend.check import check
    from launch.extend.streams import sizes
    from launch.run.shipped_configs import read, shipped_in

    if environment in shipped_in("") or environment.endswith((".yaml", ".yml")):
        config: RunConfig = read(environment, overrides or ())
    else:
        config = overridden({"env.name": environment, "run.name": "check", "model.path": "models"}, overrides or ())
    found = check(config)
    for finding in found:
        print(finding)
    errors = sum(finding.severity == "error" for finding in found)
    if not errors:
        print(sizes(config))
    print(f"{config.env.name}: {errors} errors, {len(found) - errors} warnings")
    if errors:
        raise typer.Exit(1)
