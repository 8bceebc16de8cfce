"""Whether a run joins an existing Ray cluster, and what it must satisfy there."""

import os
import socket

from agile_ray.config import Cluster, RunConfig
from agile_ray.errors import ConfigError


def check_port(port: int | None) -> None:
    """Refuse a dashboard port that another process uses.

    Raises:
        ConfigError: the port is in use.
    """
    if port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"cluster.dashboard_port: port {port}: {error.strerror}; choose another or leave it out"
            ) from error


def joins(settings: Cluster) -> bool:
    """Whether the run joins an existing Ray cluster."""
    return settings.address is not None or "RAY_ADDRESS" in os.environ


def check_shared(config: RunConfig) -> None:
    """Refuse relative paths on a cluster: they would be in a job's working folder, which is deleted with the job.

    Raises:
        ConfigError: a path is relative.
    """
    paths = {
        "run.folder": config.run.folder,
        "model.path": config.model.path,
        "env.data": config.env.data,
        "env.recorded": config.env.recorded,
    }
    relative = [f"{key}={path}" for key, path in paths.items() if path is not None and not path.is_absolute()]
    if relative:
        raise ConfigError(
            f"{', '.join(relative)}: on a cluster a path must be absolute, and on a disk that every node shares, "
            "such as run.folder=/mnt/shared/runs"
        )
