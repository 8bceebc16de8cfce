"""Joins a Ray cluster or starts a local one, and leaves no process behind.

cluster.address given             that cluster is joined
RAY_ADDRESS set (a cluster job)   the job's cluster is joined
neither, or `local`               a local cluster is started; it ends with the driver, even if that is killed
"""

import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agile_ray.config import Cluster
from agile_ray.errors import ConfigError
from launch.cluster import reaper
from launch.cluster.address import LOCAL, address_of, check_port, temporary_folder


@contextmanager
def cluster(settings: Cluster, *, cpus: int) -> Iterator[None]:
    """Connect to Ray for the duration of a `with` block.

    Args:
        settings: the address; with `device: gpu` Ray counts the machine's GPUs itself.
        cpus: logical CPUs of a local cluster, at least one per actor; may exceed those of the machine.

    Raises:
        ConfigError: the address does not answer, the dashboard's port is in use, or there is no folder for sockets.
    """
    import ray

    if address := address_of(settings):
        _join(address, "cluster.address" if address == settings.address else "RAY_ADDRESS")
        try:
            yield
        finally:
            ray.shutdown()
        return
    check_port(settings.dashboard_port)
    temporary = temporary_folder()
    with _reaped(temporary):
        try:
            ray.init(
                address=LOCAL,
                num_cpus=cpus,
                include_dashboard=settings.dashboard_port is not None,
                dashboard_port=settings.dashboard_port,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(temporary / "ray"),
            )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _reaped(temporary: Path) -> Iterator[None]:
    """End every process that is started in the block with the block, or with this process."""
    token = secrets.token_hex(8)
    sockets = tempfile.mkdtemp(prefix="agile-ray-", dir=temporary)
    watch = [sys.executable, str(reaper.__file__), token, str(os.getpid()), sockets]
    process = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
    os.environ |= {reaper.MARK: token, "VLLM_RPC_BASE_PATH": sockets}  # vLLM does not remove its sockets
    try:
        yield
    finally:
        process.communicate(timeout=2 * reaper.GRACE_S)


def _join(address: str, source: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{source}: {address} does not answer as a Ray cluster ({error})") from error
