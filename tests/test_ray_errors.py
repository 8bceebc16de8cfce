"""Every error of Ray's is one line that says what happened, and what to lower where memory ran out."""

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from agile_ray.errors import AgileError, ConfigError, EngineError, LearnerError
from agile_ray.ray_errors import LENGTH, explain
from learner.rank_actors import RankActors
from rollout.waiting import wait

PAGE = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: dc8157) \
was 60.81GB used / 64.00GB limit (0.950156)
OOM kill reason: Memory usage 65294241792B exceeded threshold of 65283502899B (95.0% of 68719476736B limit)
Object store memory usage: [- objects spillable: 0
- bytes spillable: 0

Eviction Stats:
(global lru) capacity: 5235897139
(global lru) bytes evicted: 0]
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
(Actor(31c0): job ID=01000000, lease ID=01, task name=LearnerActor.__init__, required resources={CPU: 1}, pid=4712, \
actual memory used=12.00GB, worker ID=70)
Selected to kill: (Actor(7747): job ID=01000000, lease ID=02, task name=RolloutActor.__init__, required \
resources={CPU: 1}, pid=4711, actual memory used=31.20GB, worker ID=77)
]
Total non-selected idle workers: 1
Total non-selected idle workers USS bytes: 0.04GB
To see more information about memory usage on this node, use `ray logs raylet.out -ip 10.0.0.7`
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
4711\t31.20\tray::RolloutActor.load
4712\t12.00\tray::LearnerActor.learn
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io. Consider ...
"""
OLDER = (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 172.31.23.1, ID: 2c0c) where the "
    "task (actor ID: 76b2, name=RolloutActor.__init__, pid=664672, memory used=0.05GB) was running was 219.41GB / "
    "230.40GB (0.952289), which exceeds the memory usage threshold of 0.95. Top 10 memory users:\n1\t2\t3\n"
)
GUESSES = (
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
    "process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) a SIGSEGV."
)
ERRORS = [
    OutOfMemoryError(PAGE),
    NodeDiedError("The node\nis gone"),
    ObjectLostError("ff" * 14, None, "driver.py:3 | f"),
    ObjectStoreFullError("2 GB\nwanted"),
    OutOfDiskError("disk"),
    RaySystemError("raylet died", traceback_str="a\n  b"),
    RuntimeEnvSetupError("pip\nfailed"),
    WorkerCrashedError(),
    ActorDiedError(),
    ActorUnavailableError("rpc\nbroke", None),
    RayTaskError("load", "Traceback (most recent call last):\n  x\nOSError: broken", OSError("line 1\nline 2")),
    RayError(),
]


def raising(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ray answer every request with this error."""

    def get(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "put", get)
    monkeypatch.setattr(ray, "wait", lambda answers, **_: (list(answers), []))


def ranks() -> RankActors:
    actors = RankActors.__new__(RankActors)
    actors._deadline_s = 1.0
    return actors


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_rays_is_one_short_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(error, monkeypatch)
    with pytest.raises(EngineError, match=r"^rollout\.load: actor 0") as engines:
        wait("load", ["an answer"], deadline_s=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(LearnerError, match=r"^learner\.learn: ") as learners:
        ranks().wait("learn", ["an answer"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(LearnerError, match=r"^learner: ") as shared:
        ranks().share("a value")
    for caught in (engines, learners, shared):
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < LENGTH + 150


def test_out_of_memory_says_who_used_how_much_of_how_much_and_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(OutOfMemoryError(PAGE), monkeypatch)
    with pytest.raises(EngineError) as caught:
        wait("collect", ["an answer"], deadline_s=1)  # pyright: ignore[reportArgumentType]
    assert str(caught.value) == (
        "rollout.collect: actor 0 died (out of memory: RolloutActor (process 4711) used 31.20 GB, the node 10.0.0.7 "
        "60.81 of 64.00 GB; lower rollout.seats, rollout.actors or rollout.kv_cache_gib, or use a node with more "
        "memory); the same run name resumes"
    )


def test_out_of_memory_is_read_from_older_messages_and_from_parts_of_one() -> None:
    assert explain(OLDER, lower="x").startswith(
        "out of memory: RolloutActor (process 664672) used 0.05 GB, the node 172.31.23.1 219.41 of 230.40 GB; lower x"
    )
    assert explain("Worker exit type: NODE_OUT_OF_MEMORY", lower="x").startswith(
        "out of memory: Ray ended a process; lower x"
    )


def test_every_process_that_ran_out_of_memory_is_named() -> None:
    both = PAGE.replace("\n(Actor(31c0)", "\nSelected to kill: (Actor(31c0)")
    assert explain(both, lower="x").startswith(
        "out of memory: LearnerActor (process 4712) used 12.00 GB and RolloutActor (process 4711) used 31.20 GB, the "
    )


def test_a_sudden_death_for_which_ray_guesses_at_memory_is_no_memory_error() -> None:
    assert explain(GUESSES, lower="x").startswith("Worker unexpectedly exits")


def test_of_a_traceback_its_last_line_is_kept() -> None:
    text = (
        "The actor died because of an error raised in its creation task, \x1b[36mray::LearnerActor.__init__()\x1b[39m "
        '(pid=3, ip=1.2.3.4)\n  File "actor.py", line 3, in __init__\n    raise\nOSError: [Errno 30] read-only: "/opt"'
    )
    assert explain(text, lower="x") == 'OSError: [Errno 30] read-only: "/opt"'


def test_what_an_actor_raised_on_purpose_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(RayTaskError("load", "Traceback", ConfigError("model.path: no folder")), monkeypatch)
    with pytest.raises(ConfigError, match=r"^model\.path: no folder$"):
        wait("load", ["an answer"], deadline_s=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(AgileError, match=r"^model\.path: no folder$"):
        ranks().wait("load", ["an answer"])  # pyright: ignore[reportArgumentType]
