"""A published version of the weights, which the learner publishes and the rollout engines fetch."""

from collections.abc import Callable
from dataclasses import dataclass

from agile_ray.types import Float32, Int32


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One parameter in its bucket."""

    name: str  # as in the Hugging Face checkpoint
    dtype: str  # "float32" or "bfloat16"
    shape: tuple[int, ...]
    offset_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Parameters packed into one run of bytes."""

    index: int  # 0-based, among the version's buckets
    size_bytes: int
    checksum: int  # crc32 of the bytes
    tensors: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Token ids and their logprobs under these weights, by which an engine proves that it serves them."""

    ids: Int32  # [T]
    logprobs: Float32  # [T], nats; entry 0 is 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRef:
    """One version, by reference."""

    version: int
    buckets: tuple[Bucket, ...]  # empty if the transport moves the bytes itself (nccl)
    blobs: tuple[object, ...]  # one per bucket: a Ray object reference to its bytes (numpy uint8)
    probes: tuple[Probe, ...]
    transfer: Callable[[], None] | None = None  # moves the bytes into engines that are prepared for them (nccl)
