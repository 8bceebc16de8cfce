"""Buckets: parameters packed into a few large byte arrays, so that a version is sent in few pieces."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agile_ray.weights import TensorSpec

BUCKET_BYTES = 32 * 2**20
"""A bucket is full once it holds this many bytes; only the last one is smaller."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketPlan:
    """The layout of one bucket."""

    size_bytes: int
    tensors: tuple[TensorSpec, ...]


def plan_buckets(shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: torch.dtype) -> tuple[BucketPlan, ...]:
    """Assign parameters, in the order given, to buckets of at least `BUCKET_BYTES`; only the last may be smaller.

    Args:
        shapes: the parameters' names and shapes.
    """
    buckets: list[BucketPlan] = []
    tensors: list[TensorSpec] = []
    filled = 0
    for name, shape in shapes:
        tensors.append(TensorSpec(name=name, dtype=str(dtype).removeprefix("torch."), shape=shape, offset_bytes=filled))
        filled += int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if filled >= BUCKET_BYTES:
            buckets.append(BucketPlan(size_bytes=filled, tensors=tuple(tensors)))
            tensors, filled = [], 0
    if tensors:
        buckets.append(BucketPlan(size_bytes=filled, tensors=tuple(tensors)))
    return tuple(buckets)


def pack(plan: BucketPlan, parameters: Iterable[Tensor], dtype: torch.dtype) -> Bytes:
    """Copy parameters into one bucket, cast to `dtype`.

    Args:
        parameters: one per tensor of the plan, complete, on any device; consumed one at a time.
    """
    bucket = np.empty(plan.size_bytes, dtype=np.uint8)
    view = torch.from_numpy(bucket)
    for spec, parameter in zip(plan.tensors, parameters, strict=True):
        size = parameter.numel() * dtype.itemsize
        target = view[spec.offset_bytes : spec.offset_bytes + size].view(dtype)
        target.copy_(parameter.detach().reshape(-1))
    return bucket
