"""Starting and ending Ray: whose signals count, and how a start that fails looks. `ray` is a fake here."""

import ctypes
import signal
import subprocess
import sys

import pytest
import ray
from ray._private import utils

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


def handler_as_rays():
    utils.set_sigterm_handler(lambda *_: sys.exit(1))


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_ray_takes_no_signal_from_the_run(ray_starts, address):
    heard = []
    before, theirs = signal.signal(signal.SIGTERM, lambda *_: heard.append(True)), utils.set_sigterm_handler

    def start():
        handler_as_rays()
        signal.raise_signal(signal.SIGTERM)
        ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(signal.SIG_IGN))  # as Ray does in C++

    ray_starts(start)
    try:
        with cluster(Cluster(address=address), cpus=1):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [True, True]
    assert utils.set_sigterm_handler is theirs


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
        real(reaper, timeout=20)
    assert len(reapers) == 1
