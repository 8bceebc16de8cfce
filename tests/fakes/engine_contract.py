"""What every engine promises to lanes and loader: the fake passes it in fast tests, vLLM in integration tests."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from agile_ray.agent.policy import Completion
from agile_ray.seeds import derive
from rollout.engine_policy import Engine
from rollout.weights.loader import ServingEngine


class WholeEngine(Engine, ServingEngine, Protocol):
    """All that is used of an engine."""


def check_completion(completion: Completion, *, max_tokens: int, version: int) -> None:
    """A completion has 1 to `max_tokens` tokens, each with a logprob and the version that wrote it; and p(ask)."""
    assert 1 <= len(completion.ids) <= max_tokens
    assert completion.ids.shape == completion.logprobs.shape == completion.versions.shape
    assert (completion.logprobs <= 0).all()
    assert 0.0 <= completion.ask_probability <= 1.0
    assert set(completion.versions.tolist()) == {version}


async def check_engine(engine: WholeEngine, *, prompts: Sequence[Sequence[int]], version: int) -> None:
    """Check an engine that serves `version`."""
    alone = await engine.generate(prompts[0], max_tokens=5, temperature=1.0)
    check_completion(alone, max_tokens=5, version=version)

    limits = [1 + index for index in range(len(prompts))]
    await engine.forget()
    batch = await engine.generate_batch(prompts, max_tokens=limits, temperature=0.0)
    assert len(batch) == len(prompts)
    for completion, limit in zip(batch, limits, strict=True):
        check_completion(completion, max_tokens=limit, version=version)
    await engine.forget()
    again = await engine.generate_batch(prompts, max_tokens=limits, temperature=0.0)
    assert [one.ids.tolist() for one in again] == [one.ids.tolist() for one in batch]

    sampled = []
    for _ in range(2):
        await engine.forget()
        written = await engine.generate_batch(
            prompts, max_tokens=limits, temperature=1.0, seeds=[derive(0, index) for index in range(len(prompts))]
        )
        sampled.append([(one.ids.tolist(), one.logprobs.tolist()) for one in written])
    assert sampled[0] == sampled[1]

    scores = await engine.score(prompts[0])
    assert (scores.shape, scores.dtype) == ((len(prompts[0]),), np.float32)
    assert scores[0] == 0.0

    await engine.hold()
    await engine.update_weight_version(str(version + 1))
    await engine.release()
    renamed = await engine.generate(prompts[0], max_tokens=3, temperature=1.0)
    check_completion(renamed, max_tokens=3, version=version + 1)
