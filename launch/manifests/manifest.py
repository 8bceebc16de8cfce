"""Prints what a cluster's own tools take to start a training."""

from collections.abc import Callable, Mapping, Sequence

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from launch.manifests.rayjob import rayjob
from launch.manifests.request import Request, request
from launch.manifests.skypilot import skypilot
from launch.manifests.slurm import slurm
from launch.plan.machines import parse_shape

KINDS: Mapping[str, Callable[[Request], str]] = {"rayjob": rayjob, "slurm": slurm, "skypilot": skypilot}


def print_manifest(
    kind: str,
    config: RunConfig,
    *,
    shape: str | None,
    image: str | None,
    claim: str,
    priority: str,
    track: Sequence[str] = (),
) -> None:
    """Print a manifest.

    Args:
        kind: one of KINDS.
        config: of the run, with absolute paths.
        shape: of the machines; None: as many as the run takes.
        image: of containers; None: the one that the Dockerfile builds for the run's device.
        claim: the volume that its nodes share.
        priority: its name in the cluster; "": none.
        track: names of programs that are given the metrics meanwhile.

    Raises:
        ConfigError: the kind is unknown, a path is relative, or the run does not fit.
    """
    if kind not in KINDS:
        raise ConfigError(f"--manifest: one of {', '.join(KINDS)}, found {kind}")
    nodes = None if shape is None else parse_shape(shape)
    asked = request(
        config,
        nodes=nodes,
        image=image or f"agile-ray:{config.cluster.device}",
        claim=claim,
        priority=priority,
        track=track,
    )
    print(KINDS[kind](asked), end="")
