"""Room on a real Ray cluster of four CPUs: all of it or none, and given back. Fake actors in place of engines."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError, DeadlineError
from launch.cluster.room import ROOM_S, reserve

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
CPUS = 4
CONFIG = RunConfig.model_validate({"run": {"name": "t"}, "model": {"path": "m"}, "env": {"name": "shop"}})

DRIVER = """
import sys, time
import ray
from launch.cluster.room import reserve
from tests.integration.test_room import CONFIG, Worker

ray.init(address=sys.argv[1], log_to_driver=False)
room = reserve(CONFIG, engines=1, ranks=2, deadline_s=200)
began = time.time()
kind = ray.remote(num_cpus=1)(Worker)
workers = [kind.options(scheduling_strategy=place).remote() for place in (*room.engines, *room.ranks)]
assert ray.get([worker.ping.remote() for worker in workers], timeout=200) == ["pong"] * 3
time.sleep(1)
print(began, time.time(), flush=True)
room.close()
"""


class Worker:
    """An actor that does nothing."""

    def ping(self) -> str:
        return "pong"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        context = ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
        yield context.address_info["gcs_address"]
        ray.shutdown()


def free() -> float:
    return ray.available_resources().get("CPU", 0.0)


def wait_until_free(cpus: float) -> None:
    end = time.monotonic() + 100
    while free() != cpus:
        assert time.monotonic() < end, f"{free()} of {cpus} CPUs are free"
        time.sleep(0.2)


@pytest.mark.usefixtures("address")
def test_more_than_the_cluster_has_is_refused_at_once() -> None:
    begin = time.monotonic()
    with pytest.raises(
        ConfigError, match="2 engines and 3 learner ranks need 5 CPUs, the cluster has 4 CPUs, free are 4"
    ):
        reserve(CONFIG, engines=2, ranks=3)
    assert time.monotonic() - begin < ROOM_S
    wait_until_free(CPUS)


@pytest.mark.usefixtures("address")
def test_room_that_another_run_has_is_waited_for_and_nothing_is_held_meanwhile() -> None:
    first = reserve(CONFIG, engines=1, ranks=2)
    worker = ray.remote(num_cpus=1)(Worker).options(scheduling_strategy=first.ranks[1]).remote()
    assert ray.get(worker.ping.remote(), timeout=200) == "pong"
    with pytest.raises(DeadlineError) as caught:
        reserve(CONFIG, engines=1, ranks=1, deadline_s=2)
    assert str(caught.value) == (
        "cluster: a run's room must be free within 2 s, but 1 engine and 1 learner rank need 2 CPUs, the cluster has 4 "
        "CPUs, free are 1 CPUs; wait until others end, or lower rollout.actors or learner.ranks"
    )
    assert free() == 1
    first.close()
    wait_until_free(CPUS)
    with pytest.raises(ray.exceptions.RayActorError):  # it ran in the room
        ray.get(worker.ping.remote(), timeout=200)
    reserve(CONFIG, engines=1, ranks=1).close()
    wait_until_free(CPUS)


def test_of_two_runs_that_do_not_fit_side_by_side_one_waits_and_holds_nothing(address: str) -> None:
    words = [sys.executable, "-c", DRIVER, address]
    runs = [subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    seen = set()
    while any(run.poll() is None for run in runs):
        seen.add(free())
        time.sleep(0.1)
    spans = sorted(tuple(map(float, run.communicate()[0].split())) for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert spans[0][1] <= spans[1][0]  # the second has its room only once the first has left
    assert seen <= {CPUS, CPUS - 3}
    wait_until_free(CPUS)
