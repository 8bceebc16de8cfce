"""`agile-ray submit`. launch/cluster/job.py describes what runs where."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from agile_ray.errors import ConfigError
from launch.commands.jobs.options import Address, Track, dashboard, told
from launch.commands.paths import as_path

KINDS = ("rayjob", "slurm", "skypilot")
PROJECT = Path(__file__).resolve().parents[3]

EnvVar = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="Environment variable of all processes of the job; may be given several times."
    ),
]
Follow = Annotated[bool, typer.Option(help="Print the job's log until the job ends, then exit with its code.")]
Project = Annotated[
    Path,
    typer.Option(
        parser=as_path,
        metavar="FOLDER",
        help="A checkout of this project.",
        show_default="the one that this command runs from",
    ),
]


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a shipped config, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as run.folder=/mnt/runs.")
    ] = None,
    address: Address = None,
    track: Track = None,
    follow: Follow = True,
    env_var: EnvVar = None,
    entrypoint_num_cpus: Annotated[
        float | None, typer.Option(min=0, metavar="CPUS", help="Logical CPUs that the job's own process reserves.")
    ] = None,
    entrypoint_num_gpus: Annotated[
        float | None, typer.Option(min=0, metavar="GPUS", help="The same of GPUs; its actors reserve their own.")
    ] = None,
    entrypoint_memory: Annotated[
        int | None, typer.Option(min=0, metavar="BYTES", help="The same of main memory.")
    ] = None,
    entrypoint_resources: Annotated[
        str | None, typer.Option(metavar="JSON", help="""The same of a cluster's own resources: '{"head": 0.1}'.""")
    ] = None,
    project: Project = PROJECT,
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(KINDS), help="Start nothing; print what a cluster's own tools take to start the training."
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE",
            help="For --manifest: machines, such as 2x8xH100-80; see `agile-ray plan --help`.",
            show_default="as many as the run takes",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="For --manifest: image of the containers.", show_default="agile-ray:cpu or agile-ray:gpu"),
    ] = None,
    claim: Annotated[str, typer.Option(help="For --manifest: volume claim of the shared disk.")] = "agile-ray",
    priority: Annotated[
        str, typer.Option(help="For --manifest: priority class of Kubernetes, or quality of service of Slurm.")
    ] = "",
) -> None:
    """Train as a job of a Ray cluster, or print a manifest for a cluster's own tools.

    Copies this project into the job's working folder, starts the job and follows its log. `agile-ray jobs`, `status`,
    `logs` and `stop` find it again by the name of the run.

    Paths in the config must be absolute, on a disk that every node shares. Running the same command again resumes from
    the last complete checkpoint.

    On a cluster with token authentication, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token.

    With --manifest, nodes, GPUs, cores and memory are those of `agile-ray plan`. A RayJob of KubeRay starts its own
    Ray cluster; so do the script for Slurm and the task for SkyPilot.

    \b
    Examples:
      agile-ray submit quickstart --address http://10.0.0.1:8265 run.folder=/mnt/runs model.path=/mnt/models/tiny
      agile-ray submit spec.yaml --address http://10.0.0.1:8265 --env-var NCCL_SOCKET_IFNAME=eth1 --no-follow
      agile-ray submit spec.yaml --manifest rayjob --cluster 2x8xH100-80 --priority high > job.yaml
    """
    chosen = variables(env_var or ())
    from launch.cluster.address import check_shared
    from launch.run.shipped_configs import read

    resolved = read(config, overrides or ())
    check_shared(resolved)
    if manifest is not None:
        from launch.manifests.manifest import print_manifest

        print_manifest(
            manifest, resolved, shape=cluster, image=image, claim=claim, priority=priority, track=track or ()
        )
        return
    where = dashboard(address, of="submit")

    from launch.cluster.job import submit
    from launch.cluster.jobs import Resources

    reserved = Resources(
        cpus=entrypoint_num_cpus,
        gpus=entrypoint_num_gpus,
        memory=entrypoint_memory,
        custom=None if entrypoint_resources is None else custom_resources(entrypoint_resources),
    )
    raise typer.Exit(
        submit(
            resolved, address=where, project=project, follow=follow, variables=told(track) | chosen, resources=reserved
        )
    )


def variables(given: Sequence[str]) -> dict[str, str]:
    """Environment variables by name.

    Raises:
        ConfigError: one is not NAME=VALUE, or a name is given twice.
    """
    found: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--env-var: must be NAME=VALUE, such as HF_HOME=/mnt/hf, found {pair}")
        if name in found:
            raise ConfigError(f"--env-var {name}: given twice; leave one out")
        found[name] = value
    return found


def custom_resources(text: str) -> dict[str, float]:
    """A cluster's own resources by name.

    Raises:
        ConfigError: the text is no JSON object of numbers above 0.
    """
    try:
        found: object = json.loads(text)
    except ValueError:
        found = None
    amounts = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    checked = {
        name: float(amount)
        for name, amount in amounts.items()
        if isinstance(amount, int | float) and not isinstance(amount, bool) and amount > 0
    }
    if not amounts or len(checked) < len(amounts):
        example = '{"head": 0.1}'
        raise ConfigError(
            f"--entrypoint-resources: must be a JSON object of numbers above 0, such as {example}, found {text}"
        )
    return checked
