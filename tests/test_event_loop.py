"""The benchmark of the event loop plays what it says it plays, on few lanes."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agile_ray.types import Ending
from benchmarks import event_loop
from benchmarks.event_loop import ASKS_EVERY, Hashed, Load, Speeds, fill, measure

ROOT = Path(__file__).resolve().parents[1]


class Meets:
    """Stands for time in the benchmark: a tool sleeps until those of all lanes do."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self, lanes: int) -> None:
        self.meetings = 0
        self._barrier = threading.Barrier(lanes, action=self._met, timeout=60)

    def sleep(self, seconds: float) -> None:
        self._barrier.wait()

    def _met(self) -> None:
        self.meetings += 1


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_lanes_that_wait_for_their_tools_wait_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks_ahead: bool
) -> None:
    fill(tmp_path / "products.db")
    load = Load(lanes=16, sessions=2 * ASKS_EVERY, latency_s=0.2, looks_ahead=looks_ahead)
    meets = Meets(load.lanes)
    monkeypatch.setattr(event_loop, "time", meets)
    speeds, sessions = measure(load, Hashed(), tmp_path / "products.db", first=0)
    assert meets.meetings == load.sessions
    assert speeds.latency == load.lanes / load.latency_s
    assert len(sessions) == load.lanes * load.sessions
    for session in sessions:
        assert (session.ending, session.remarks) == (Ending.DONE, ())
        assert len(session.receipts) == (session.position % ASKS_EVERY == 0)
        assert len(session.writes) == 2 * len(session.receipts)


def test_the_ratio_is_that_to_the_slowest_part() -> None:
    speeds = Speeds(played=90.0, latency=5000.0, embeddings=100.0, sql=700.0)
    assert str(speeds) == "90 sessions/s; alone: latency 5000, embeddings 100, sql 700; ratio 0.90"


def test_the_benchmark_explains_itself() -> None:
    command = [sys.executable, "-m", "benchmarks.event_loop", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--lanes" in shown
    assert "slowest part" in shown
