"""Starting and ending Ray: whose signals count, and how a start that fails looks. `ray` is a fake here."""

import ctypes
import signal
import subprocess
import sys

import pytest
import ray

from agile_ray.config import Cluster
from agile_ray.errors import ConfigError, EngineError
from launch.cluster.ray_cluster import cluster

START = "The current node timed out during startup. This could happen because the GCS has become overloaded."


@pytest.fixture
def ray_starts(monkeypatch):
    """Sets what `ray.init` does; returns the names of the calls that were made."""
    calls = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))

    def sets(start):
        def init(**_):
            calls.append("init")
            start()

        monkeypatch.setattr(ray, "init", init)
        return calls

    return sets


@pytest.fixture
def heard():
    """How often this process's handler of SIGTERM is called."""
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append(True))
    yield calls
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
@pytest.mark.parametrize("code", [1, 15])
def test_sigterm_while_ray_starts_reaches_the_run(ray_starts, heard, address, code):
    def start():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
        signal.raise_signal(signal.SIGTERM)

    ray_starts(start)
    with pytest.raises(KeyboardInterrupt), cluster(Cluster(address=address), cpus=1):
        pytest.fail("Ray has not started")
    signal.raise_signal(signal.SIGTERM)
    assert heard == [True, True]


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_ray_takes_no_signal_from_the_run(ray_starts, heard, address):
    def start():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(signal.SIG_IGN))  # as Ray does in C++

    ray_starts(start)
    with cluster(Cluster(address=address), cpus=1):
        signal.raise_signal(signal.SIGTERM)
    assert heard == [True]


def test_ray_that_does_not_start_is_one_line(ray_starts):
    def start():
        raise Exception(START)  # noqa: TRY002  as Ray does

    calls = ray_starts(start)
    with (
        pytest.raises(EngineError, match=r"^Ray: it did not start \(The current node timed out") as end,
        cluster(Cluster(), cpus=1),
    ):
        pytest.fail("Ray has not started")
    assert "\n" not in str(end.value)
    assert calls == ["init", "shutdown"]


def test_an_address_that_does_not_answer_is_the_key_s_fault(ray_starts):
    def start():
        raise ConnectionError("nobody there")

    ray_starts(start)
    with (
        pytest.raises(ConfigError, match=r"^cluster\.address: 10\.0\.0\.1:6379 does not answer"),
        cluster(Cluster(address="10.0.0.1:6379"), cpus=1),
    ):
        pytest.fail("nothing was joined")


def test_a_reaper_that_is_late_does_not_fail_the_run(ray_starts, monkeypatch):
    real = subprocess.Popen.communicate
    reapers = []

    def late(self, timeout):
        reapers.append(self)
        raise subprocess.TimeoutExpired("reaper", timeout)

    ray_starts(lambda: None)
    monkeypatch.setattr(subprocess.Popen, "communicate", late)
    with cluster(Cluster(), cpus=1):
        pass
    for reaper in reapers:
        real(reaper, timeout=100)
    assert len(reapers) == 1
