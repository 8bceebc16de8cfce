"""`agile-ray validate`: checks specs and starts nothing; launch/validate does the work."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.errors import ConfigError

if TYPE_CHECKING:
    from launch.validate.spec import Target

WRONG = 2
"""Exit code if a spec has a fault."""


def command(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC... [KEY=VALUE...]",
            help="Names of shipped configs and sweeps, or YAML files; then overrides for all of them.",
        ),
    ],
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE", help="Machines that are meant, such as 2x8xH100-80; see `agile-ray plan --help`."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Dashboard of the cluster that is meant: its nodes and paths are checked."),
    ] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print each configuration too, every default spelled out.")
    ] = False,
) -> None:
    """Check specs: one line for each fault, exit code 2 if there is any. Nothing is started.

    Checked are keys, types and contradictions; includes and axes; that model, data, environment, expert and embedder
    are there and fit each other; that a session fits the model; that the machines have the GPUs and the memory. With
    --address also that the cluster answers, takes the token, and has the paths; with --cluster paths are listed as
    unchecked.

    \b
    Examples:
      agile-ray validate quickstart shop configs/sweeps/prices.yaml
      agile-ray validate spec.yaml --cluster 2x8xH100-80 run.folder=/mnt/runs
      agile-ray validate spec.yaml --address http://10.0.0.1:8265
    """
    names, overrides = _split(specs)
    target = _target(cluster, address)
    from launch.validate.spec import check_spec

    wrong = False
    for name in names:
        found = check_spec(name, overrides, target)
        for fault in found.faults:
            print(f"agile-ray: {_naming(name, fault)}", file=sys.stderr)
        if not found.faults:
            runs = f"{found.runs} run{'s' if found.runs > 1 else ''}"
            print(f"{name}: {'as far as it is checked, ' if found.unchecked else ''}right, {runs}")
            for unchecked in found.unchecked:
                print(f"{name}: unchecked: {unchecked}")
        if resolved:
            for config in found.configs:
                print(f"# {name}\n{config.yaml()}", end="")
        wrong = wrong or bool(found.faults)
    if wrong:
        raise typer.Exit(WRONG)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Specs, and overrides, which have an = and are no files.

    Raises:
        ConfigError: there is no spec.
    """
    overrides = [word for word in words if "=" in word and not Path(word).expanduser().is_file()]
    names = [word for word in words if word not in overrides]
    if not names:
        raise ConfigError(f"validate: at least one spec is needed, found only overrides: {', '.join(overrides)}")
    return names, overrides


def _target(cluster: str | None, address: str | None) -> "Target":
    if cluster is not None and address is not None:
        raise ConfigError("validate: --cluster describes machines, --address asks for them; give one")
    dashboard = None
    if cluster is not None:
        from launch.plan.machines import parse_shape

        nodes = parse_shape(cluster)
    elif address is not None:
        from launch.cluster.dashboard import Dashboard
        from launch.validate.machines import nodes_of

        dashboard = Dashboard(address)
        nodes = nodes_of(dashboard)  # asked before libraries are loaded, so that a wrong address is told at once
    else:
        from launch.validate.machines import this_machine

        nodes = (this_machine(),)
    from launch.validate.spec import Target

    return Target(nodes=nodes, dashboard=dashboard, elsewhere=cluster is not None)


def _naming(name: str, fault: str) -> str:
    """The fault with the spec that has it, on one line."""
    line = " ".join(fault.split())
    return line if line.startswith(f"{name}:") else f"{name}: {line}"
