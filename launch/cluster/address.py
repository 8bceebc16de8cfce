"""Whether a run joins an existing Ray cluster, and what it must satisfy there."""

import os
import tempfile
from pathlib import Path

from agile_ray.config import Cluster, RunConfig
from agile_ray.errors import ConfigError

LOCAL = "local"
"""The address of a new local cluster, as Ray names it."""
SOCKET_BYTES = 107
"""Maximum length of a socket's path."""
RAY_SOCKET = f"/ray/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
"""A path as long as the longest of Ray's sockets, below its temporary folder."""


def address_of(settings: Cluster) -> str | None:
    """Address of the Ray cluster that the run joins; None: it starts a local one."""
    address = settings.address or os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", LOCAL) else address


def joins(settings: Cluster) -> bool:
    """Whether the run joins an existing Ray cluster."""
    return address_of(settings) is not None


def temporary_folder() -> Path:
    """Folder of a local cluster's sockets and logs: RAY_TMPDIR, or Python's, which TMPDIR sets.

    Raises:
        ConfigError: it can't be written, or the paths of sockets in it would be too long.
    """
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    try:
        folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{name}: a folder that can be written is needed ({error})") from error
    most = SOCKET_BYTES - len(RAY_SOCKET)
    if len(os.fsencode(folder)) > most:
        raise ConfigError(
            f"{name}: {folder}: Ray's sockets need a folder of at most {most} bytes, found {len(os.fsencode(folder))}; "
            f"set {name}=/tmp"
        )
    return folder


def check_shared(config: RunConfig) -> None:
    """Refuse relative paths on a cluster: they would be in a job's working folder, which is deleted with the job.

    Raises:
        ConfigError: a path is relative.
    """
    paths = {
        "run.folder": config.run.folder,
        "model.path": config.model.path,
        "env.data": config.env.data,
        **config.env.expert.recordings,
        "imitation.sessions": config.imitation.demonstrations,
    }
    relative = {key: path for key, path in paths.items() if path is not None and not path.is_absolute()}
    if relative:
        key, path = next(iter(relative.items()))
        raise ConfigError(
            f"{', '.join(f'{one}={found}' for one, found in relative.items())}: on a cluster a path must be absolute, "
            f"and on a disk that every node shares, such as {key}=/mnt/shared/{path.name}"
        )
    for key, expert in config.env.expert.by_key.items():
        if expert.cache is not None and not expert.cache.is_absolute():
            raise ConfigError(
                f"{key}.cache={expert.cache}: on a cluster a path must be absolute; each node has a file of its own "
                "there, on a disk of its own, such as /var/tmp/answers.sqlite"
            )
