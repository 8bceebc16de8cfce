"""An engine without vLLM: it answers each prompt with the prompt's length, and records what it was asked."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agile_ray.agent.policy import Completion
from agile_ray.errors import EngineError
from agile_ray.types import Float32
from rollout.weights.bucket_message import BucketMessage
from rollout.weights.shared_memory import mapped


@dataclass
class FakeEngine:
    """Implements what lanes and the loader need from `rollout.engine.VLLMEngine`.

    The logprob of every scored token is minus the version that is served.
    """

    batches: list[list[int]] = field(default_factory=list)  # first token of every prompt, batch by batch
    seeds: list[list[int] | None] = field(default_factory=list)  # of the prompts' sampling, batch by batch
    calls: list[str] = field(default_factory=list)  # names of all calls, in order
    received: list[tuple[BucketMessage, bytes]] = field(default_factory=list)
    version: int = 0
    fails_in: str | None = None  # name of the call that raises EngineError
    ignores_versions: bool = False  # it goes on serving version 0

    async def generate(self, prompt_ids: Sequence[int], *, max_tokens: int, temperature: float) -> Completion:
        return (await self.generate_batch([prompt_ids], max_tokens=[max_tokens], temperature=temperature))[0]

    async def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: Sequence[int],
        temperature: float,
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        await self._call("generate")
        self.seeds.append(None if seeds is None else list(seeds))
        self.batches.append([prompt[0] for prompt in prompts])
        return [
            Completion(
                ids=np.full(room, len(prompt), np.int32),
                logprobs=np.zeros(room, np.float32),
                versions=np.full(room, self.version, np.int32),
                ask_probability=0.25,
            )
            for prompt, room in zip(prompts, max_tokens, strict=True)
        ]

    async def forget(self) -> None:
        await self._call("forget")

    async def score(self, ids: Sequence[int]) -> Float32:
        await self._call("score")
        served = 0 if self.ignores_versions else self.version
        return np.array([0.0, *(-float(served) for _ in ids[1:])], np.float32)

    async def hold(self) -> None:
        await self._call("hold")

    async def release(self) -> None:
        await self._call("release")

    async def start_weight_update(self) -> None:
        await self._call("start")

    async def update_weights(self, update_info: dict[str, object]) -> None:
        message = BucketMessage(**update_info)  # pyright: ignore[reportArgumentType]
        self.received.append((message, bytes(mapped(message.path))))
        await self._call("update")
        assert Path(message.path).exists()  # until the call has returned

    async def finish_weight_update(self) -> None:
        await self._call("finish")

    async def update_weight_version(self, version: str) -> None:
        await self._call("version")
        self.version = int(version)

    async def _call(self, name: str) -> None:
        await asyncio.sleep(0)
        self.calls.append(name)
        if self.fails_in == name:
            raise EngineError("lost")
