"""Joins a Ray cluster or starts a local one, and leaves no process behind.

cluster.address given             that cluster is joined
RAY_ADDRESS set (a cluster job)   the job's cluster is joined
neither                           a local cluster is started; it ends with the driver, even if that is killed
"""

import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from agile_ray.config import Cluster
from agile_ray.errors import ConfigError, EngineError
from agile_ray.ray_errors import explain
from launch.cluster import reaper
from launch.cluster.address import check_port, joins

LOWER = "learner.ranks or rollout.actors"
"""What needs less memory on a node when it is smaller."""


@contextmanager
def cluster(settings: Cluster, *, cpus: int) -> Iterator[None]:
    """Connect to Ray for the duration of a `with` block. No error of Ray's leaves it as a traceback.

    Args:
        settings: the address; with `device: gpu` Ray counts the machine's GPUs itself.
        cpus: logical CPUs of a local cluster, at least one per actor; may exceed those of the machine.

    Raises:
        ConfigError: the address does not answer, or the dashboard's port is in use.
        EngineError: Ray failed, and no call that waited for it has said so already.
    """
    from ray.exceptions import RayError

    try:
        with _joined(settings.address) if joins(settings) else _started(settings, cpus=cpus):
            yield
    except RayError as error:
        raise EngineError(f"Ray: {type(error).__name__}: {explain(error, lower=LOWER)}") from error


@contextmanager
def _started(settings: Cluster, *, cpus: int) -> Iterator[None]:
    import ray

    check_port(settings.dashboard_port)
    with _reaped():
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=settings.dashboard_port is not None,
                dashboard_port=settings.dashboard_port,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _reaped() -> Iterator[None]:
    """End what is started in the block, processes and shared memory, with the block or with this process."""
    token = secrets.token_hex(8)
    sockets = tempfile.mkdtemp(prefix="agile-ray-")
    watch = [sys.executable, str(reaper.__file__), token, str(os.getpid()), sockets]
    process = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
    os.environ |= {reaper.MARK: token, "VLLM_RPC_BASE_PATH": sockets}  # vLLM does not remove its sockets
    try:
        yield
    finally:
        process.communicate(timeout=2 * reaper.GRACE_S)


@contextmanager
def _joined(address: str | None) -> Iterator[None]:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"cluster.address: {address}" if address else f"RAY_ADDRESS: {os.environ['RAY_ADDRESS']}"
        raise ConfigError(f"{where} does not answer as a Ray cluster ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()
