"""A published version of the weights: what the learner hands out and the rollout engines fetch."""

from dataclasses import dataclass

from agile_ray.types import Float32, Int32


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Where one parameter lies in its bucket."""

    name: str  # as in the Hugging Face checkpoint
    dtype: str  # "float32" or "bfloat16"
    shape: tuple[int, ...]
    offset_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Parameters packed into one run of bytes."""

    index: int  # 0-based place among the version's buckets
    size_bytes: int
    checksum: int  # crc32 of the bytes
    tensors: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Token ids and what these weights think of them; how an engine proves that it serves them."""

    ids: Int32  # [T]
    logprobs: Float32  # [T], nats; entry 0 is 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRef:
    """One version, by reference."""

    version: int
    buckets: tuple[Bucket, ...]  # empty where the transport moved the bytes itself (nccl)
    blobs: tuple[object, ...]  # one per bucket: a Ray object reference to its bytes (numpy uint8)
    probes: tuple[Probe, ...]
