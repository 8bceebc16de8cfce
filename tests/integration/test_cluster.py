"""Ray on this machine: a local cluster that leaves nothing behind, and jobs submitted to a running one."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from launch.cluster import reaper

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

DRIVER = """
import signal, time
import ray
from agile_ray.config import Cluster
from launch.cluster.ray_cluster import cluster

@ray.remote
class Worker:
    def allocator(self):
        return "jemalloc" if "libjemalloc.so" in open("/proc/self/maps").read() else "glibc"

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with cluster(Cluster(), cpus=3):
    workers = [Worker.remote() for _ in range(2)]
    print(*ray.get([worker.allocator.remote() for worker in workers], timeout=60), flush=True)
    time.sleep(300)
"""


def local_environment():
    """The environment without a cluster to join, so that a local one is started."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}


@pytest.fixture
def folder():
    """A folder for temporary files that no other process uses; Ray's sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="ar", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


def start_driver(folder):
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=local_environment() | {"TMPDIR": str(folder)},
    )
    assert driver.stdout is not None
    assert driver.stdout.readline().split() == ["jemalloc", "jemalloc"]
    return driver


def alive(processes):
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def wait_until_gone(processes, seconds):
    deadline = time.monotonic() + seconds
    while (left := alive(processes)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_local_cluster_leaves_no_process_when_its_driver_is_killed(folder, number):
    driver = start_driver(folder)
    assert len([*folder.glob("agile-ray-*")]) == 1
    family = psutil.Process(driver.pid).children(recursive=True)
    assert len(family) >= 4  # gcs, raylet, two workers
    driver.send_signal(number)
    assert driver.wait(timeout=60) == -number
    assert wait_until_gone(family, reaper.GRACE_S + 60) == []
    assert [*folder.glob("agile-ray-*")] == []


def test_a_local_cluster_leaves_no_process_when_its_driver_is_interrupted(folder):
    driver = start_driver(folder)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGINT)
    driver.wait(timeout=60)
    assert alive(family) == []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(words, log, environment):
    """The process of a head that is ready, or has given up; and its family."""
    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env=environment, start_new_session=True)
    family, deadline = {psutil.Process(process.pid)}, time.monotonic() + 150
    while "block forever" not in log.read_text() and process.poll() is None:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    return process, family


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A cluster with token authentication, on its own ports: its address and the environment of a client."""
    folder = Path("/tmp") / f"ar{secrets.token_hex(3)}"  # Ray's sockets need a short path
    address = f"http://127.0.0.1:{(dashboard := free_port())}"
    token = secrets.token_hex(32)
    environment = local_environment() | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    words = [
        *(BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=6", f"--temp-dir={folder}"),
        *(f"--port={free_port()}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"),
        *("--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"),
    ]
    log = tmp_path_factory.mktemp("head") / "log"
    process, family = started(words, log, environment)
    if process.poll() is not None:  # Ray gives a node 30 s to start, which a busy machine may take
        process, family = started(words, log, environment)
    try:
        assert process.poll() is None, log.read_text()
        yield address, environment
    finally:  # also removes the folder of a head that did not start
        family |= {one for parent in alive(family) for one in parent.children(recursive=True)}
        process.terminate()
        process.wait(timeout=60)
        for left in wait_until_gone(family, 10):
            left.kill()
        subprocess.run(["rm", "-rf", folder], check=True)


def submit(address, environment, *words):
    command = [BIN / "agile-ray", "submit", "quickstart", "--address", address, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)


def test_a_job_installs_the_project_and_returns_its_log_and_exit_code(head, tmp_path):
    address, environment = head
    done = submit(address, environment, f"run.folder={tmp_path}", f"model.path={tmp_path / 'none'}")
    assert done.returncode == 2, done.stderr
    assert "job raysubmit_" in done.stdout
    assert f"agile-ray: model.path: {tmp_path / 'none'} is no folder" in done.stdout


def test_a_wrong_token_is_one_clear_line(head, tmp_path):
    address, environment = head
    wrong = environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = submit(address, wrong, f"run.folder={tmp_path}", f"model.path={tmp_path / 'none'}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"agile-ray: --address {address}: token refused")


def test_an_unreachable_cluster_is_one_clear_line(tmp_path):
    done = submit("http://127.0.0.1:9", local_environment(), f"run.folder={tmp_path}", f"model.path={tmp_path}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("agile-ray: --address http://127.0.0.1:9: no Ray dashboard answers")
