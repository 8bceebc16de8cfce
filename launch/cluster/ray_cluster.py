"""Joins a Ray cluster or starts a local one, and leaves no process behind.

cluster.address given             that cluster is joined
RAY_ADDRESS set (a cluster job)   the job's cluster is joined
neither, or `local`               a local cluster is started; it ends with the driver, even if that is killed
"""

import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agile_ray.config import Cluster
from agile_ray.errors import ConfigError, EngineError
from agile_ray.ray_errors import explain
from launch.cluster import allocator, reaper
from launch.cluster.address import LOCAL, address_of, temporary_folder

_Environment = dict[str, dict[str, str]]
LOWER = "learner.ranks or rollout.actors"
"""What needs less memory on a node when it is smaller."""


@contextmanager
def cluster(settings: Cluster, *, cpus: int) -> Iterator[None]:
    """Connect to Ray for the duration of a `with` block. No error of Ray's leaves it as a traceback.

    Args:
        settings: the address; with `device: gpu` Ray counts the machine's GPUs itself.
        cpus: logical CPUs of a local cluster, at least one per actor; may exceed those of the machine.

    Raises:
        ConfigError: the address does not answer, the dashboard's port is in use, or there is no folder for sockets.
        EngineError: Ray did not start, or failed, and no call that waited for it has said so already.
    """
    from ray.exceptions import RayError

    try:
        address = address_of(settings)
        environment = {"env_vars": allocator.variables(settings)}
        with _joined(address, settings, environment) if address else _started(environment, cpus=cpus):
            yield
    except RayError as error:
        raise EngineError(f"Ray: {type(error).__name__}: {explain(error, lower=LOWER)}") from error


@contextmanager
def _started(environment: _Environment, *, cpus: int) -> Iterator[None]:
    import ray

    temporary = temporary_folder()
    with _reaped(temporary):
        try:
            with _signals_kept():
                _start(environment, cpus=cpus, folder=temporary / "ray")
            yield
        finally:
            ray.shutdown()


def _start(environment: _Environment, *, cpus: int, folder: Path) -> None:
    import ray
    from ray.exceptions import RayError

    try:
        ray.init(
            address=LOCAL,
            runtime_env=environment,
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
        )
    except (OSError, RayError):
        raise
    except Exception as error:  # what Ray raises where its processes are late
        raise EngineError(
            f"Ray: it did not start ({explain(error, lower=LOWER)}); run the same command again when the machine has "
            "less to do"
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, although Ray starts in the block.

    Ray sets handlers in Python, which exit with code 1 or 15, and one in C++, which aborts the process.

    Raises:
        KeyboardInterrupt: SIGTERM came while Ray started. This process's handler was called.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # of Ray's handler
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _reaped(temporary: Path) -> Iterator[None]:
    """End what is started in the block, processes and shared memory, with the block or with this process."""
    token = secrets.token_hex(8)
    sockets = tempfile.mkdtemp(prefix="agile-ray-", dir=temporary)
    watch = [sys.executable, str(reaper.__file__), token, str(os.getpid()), sockets]
    process = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
    os.environ |= {reaper.MARK: token, "VLLM_RPC_BASE_PATH": sockets}  # vLLM does not remove its sockets
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):  # on a busy machine; it goes on without this process
            process.communicate(timeout=2 * reaper.GRACE_S)


@contextmanager
def _joined(address: str, settings: Cluster, environment: _Environment) -> Iterator[None]:
    import ray

    try:
        with _signals_kept():
            ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        source = "cluster.address" if address == settings.address else "RAY_ADDRESS"
        raise ConfigError(f"{source}: {address} does not answer as a Ray cluster ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()
