"""The engine's case of the GPU check: tokens per second, and other weights loaded in flight and checked."""

import asyncio
import time
import zlib
from pathlib import Path

import numpy as np
import torch

from agile_ray.weights import Bucket, WeightsRef
from benchmarks.bare_torch import load
from learner.weights.rank_weights import RankWeights
from rollout.engine import VLLMEngine
from rollout.settings import EngineSettings
from rollout.weights.plugin import TRANSPORT
from tests.fakes.tiny_policy import WholeEngine, policy
from tests.gpu.sizes import Size

DEADLINE_S = 120.0
CHANGE = 0.1
"""How far the other weights are from the model's, in units of their spread."""


async def measure(folder: Path, size: Size, device: str) -> dict[str, object]:
    """Start vLLM on the model, generate, and load another version.

    Raises:
        SyncError: the engine does not serve the version that it was given.
    """
    engine = await VLLMEngine.start(_settings(folder, size, device))
    try:
        prompts, most = size.ids()[:, : size.tokens // 2].tolist(), size.tokens // 4
        begin = time.perf_counter()
        written = await asyncio.gather(
            *(engine.generate(prompt, max_tokens=most, temperature=1.0) for prompt in prompts)
        )
        tokens = sum(len(one.ids) for one in written)
        generated_s = time.perf_counter() - begin
        version, blobs = _other_version(folder, size)
        begin = time.perf_counter()
        await engine.load(version, blobs)
        return {
            "generated_per_second": tokens / generated_s,
            "sync_seconds": time.perf_counter() - begin,
            "version_mib": sum(len(blob) for blob in blobs) / 2**20,
        }
    finally:
        engine.shutdown()


def _settings(folder: Path, size: Size, device: str) -> EngineSettings:
    return EngineSettings(
        model=folder,
        dtype="bfloat16",
        exact=False,
        session_tokens=size.tokens,
        stops=(1,),
        ask=2,
        lanes=size.rows,
        transport=TRANSPORT,
        device="gpu" if device == "cuda" else "cpu",
        kv_cache_gib=0.1,
        gpu_memory=0.5,
        tensor_parallel=1,
        sleeps=False,
        seed=0,
        pinned=False,
        deadline_s=DEADLINE_S,
        log=folder / "engine.log",
    )


def _other_version(folder: Path, size: Size) -> tuple[WeightsRef, list[np.ndarray]]:
    model = load(folder, dtype=torch.bfloat16, device=torch.device("cpu")).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += CHANGE * size.hidden**-0.5 * torch.randn_like(parameter)
    weights = RankWeights(WholeEngine(policy(model)), torch.bfloat16)
    blobs = [blob for blob in weights.buckets() if blob is not None]
    buckets = (
        Bucket(index=index, size_bytes=plan.size_bytes, checksum=zlib.crc32(blob.data), tensors=plan.tensors)
        for index, (plan, blob) in enumerate(zip(weights.plans, blobs, strict=True))
    )
    ids = size.ids()[0, : size.tokens // 2].astype(np.int32)
    return WeightsRef(version=1, buckets=tuple(buckets), blobs=(), probes=weights.probe([ids])), blobs
