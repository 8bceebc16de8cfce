"""What an engine tells vLLM when it leaves a GPU and comes back, and where vLLM's workers run. vLLM is a fake."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agile_ray.errors import EngineError
from rollout.engine import VLLMEngine, executor_of
from rollout.settings import EngineSettings


@dataclass
class FakeLLM:
    """Notes the calls; `whole`: what `wake_up` returns."""

    whole: bool = True
    calls: list[tuple[object, ...]] = field(default_factory=list)

    async def sleep(self, level: int, mode: str) -> None:
        self.calls.append(("sleep", level, mode))

    async def wake_up(self, tags: list[str] | None) -> bool:
        self.calls.append(("wake_up", tags))
        return self.whole


def settings(*, device: str = "gpu", sleeps: bool = True, tensor_parallel: int = 1) -> EngineSettings:
    return EngineSettings(
        model=Path("m"),
        dtype="bfloat16",
        exact=False,
        session_tokens=64,
        stops=(0,),
        ask=1,
        lanes=2,
        transport="ray_shm",
        device=device,
        kv_cache_gib=1.0,
        gpu_memory=0.85,
        tensor_parallel=tensor_parallel,
        sleeps=sleeps,
        seed=0,
        pinned=True,
        deadline_s=1.0,
        log=Path("log"),
    )


class Engine(VLLMEngine):
    """Waits without vLLM's own errors, whose import takes long."""

    async def wait(self, name: str, waiting: Awaitable[object]) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        return await waiting


def nap(llm: FakeLLM, given: EngineSettings) -> list[tuple[object, ...]]:
    engine = Engine(llm, given)  # pyright: ignore[reportArgumentType]

    async def both() -> None:
        await engine.sleep()
        await engine.wake()

    asyncio.run(both())
    return llm.calls


def test_on_a_shared_gpu_weights_are_kept_in_main_memory_and_requests_in_the_engine() -> None:
    assert nap(FakeLLM(), settings()) == [("sleep", 1, "keep"), ("wake_up", None)]


def test_on_a_cpu_the_engine_only_pauses() -> None:
    assert nap(FakeLLM(), settings(device="cpu", sleeps=False)) == [("sleep", 0, "keep"), ("wake_up", ["scheduling"])]


def test_an_engine_that_is_only_partly_awake_is_an_error() -> None:
    with pytest.raises(EngineError, match="a part of it sleeps"):
        nap(FakeLLM(whole=False), settings())


@pytest.mark.parametrize(
    ("device", "tensor_parallel", "backend"), [("gpu", 1, "uni"), ("gpu", 2, "mp"), ("gpu", 8, "mp"), ("cpu", 1, "mp")]
)
def test_the_workers_of_an_engine_are_never_ray_actors(device: str, tensor_parallel: int, backend: str) -> None:
    assert executor_of(settings(device=device, tensor_parallel=tensor_parallel)) == backend
