"""One small end-to-end run on real Ray, vLLM and DeepSpeed, which many tests examine."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from agile_ray.record import history
from agile_ray.record.history import Event, Line

BIN = Path(sys.executable).parent
LANES, SESSIONS, ITERATIONS, STEPS = 4, 6, 4, 6
EVALUATED = 16
"""Sessions of each evaluation."""
WAIT_S = 480
OVERRIDES = (
    *("run.name=small", "agent.turns=4", "imitation.sessions=96", "imitation.batch=16", "imitation.checkpoint_every=2"),
    *(
        "ppo.minibatches=2",
        f"loop.lanes={LANES}",
        f"loop.sessions_per_lane={SESSIONS}",
        f"loop.iterations={ITERATIONS}",
    ),
    *(
        "loop.checkpoint_every=2",
        "loop.evaluate_every=2",
        f"evaluate.validation_sessions={EVALUATED}",
        "rollout.kv_cache_gib=0.25",
        "rollout.deterministic=true",
    ),
    f"evaluate.sessions={EVALUATED}",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One run's command and folder."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "small"

    @property
    def words(self) -> list[str]:
        return ["quickstart", *OVERRIDES, f"model.path={self.folder / 'model'}", f"run.folder={self.folder}"]

    def start(self) -> subprocess.Popen[str]:
        words = [str(BIN / "agile-ray"), "train", *self.words]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())

    def lines(self, event: Event) -> list[Line]:
        path = self.run / "history.jsonl"
        return [line for line in history.read(path) if line.event is event] if path.exists() else []

    def wait_for(self, event: Event, count: int, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + WAIT_S
        while len(self.lines(event)) < count:
            assert process.poll() is None, process.communicate()[0]
            if time.monotonic() > deadline:
                process.kill()
                said = process.communicate(timeout=200)[0]
                pytest.fail(f"{event}: {len(self.lines(event))} of {count} lines after {WAIT_S} s; it said: {said}")
            time.sleep(0.1)


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}


def gone(processes: list[psutil.Process], *, within_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + within_s
    while (left := [one for one in processes if alive(one)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def new_job(folder: Path) -> Job:
    """A run that has its model and has not started."""
    job = Job(folder)
    model = [
        str(BIN / "agile-ray"),
        "model",
        "tiny",
        "--hidden",
        "64",
        "--layers",
        "1",
        "--output",
        f"{job.folder}/model",
    ]
    subprocess.run(model, check=True, env=environment(), capture_output=True)
    return job


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run that was killed during PPO, and resumed until it was finished."""
    job = new_job(tmp_path_factory.mktemp("runs"))
    process = job.start()
    job.wait_for(Event.ITERATION, 3, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert len(family) >= 8  # Ray's own processes, two ranks, an actor with its engine's core and worker
    process.communicate(timeout=200)
    assert gone(family, within_s=150) == []

    lost = sum(line.metrics["rows"] for line in job.lines(Event.ITERATION)[2:])
    process = job.start()
    said = process.communicate(timeout=WAIT_S)[0]
    assert process.returncode == 0, said
    assert f"resumed after {STEPS} imitation steps and 2 iterations; discarded {lost:.0f} segments" in said, said
    return job


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of the small run first: they take longest, and another worker runs the rest in the meantime."""
    items.sort(key=lambda item: "job" not in getattr(item, "fixturenames", ()))
