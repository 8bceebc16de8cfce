"""Collects the buckets of one version until it is complete. Works on bytes alone, without torch or vLLM.

A bucket is refused when it is out of order, has another size than announced, or does not match its checksum. The last
bucket is also refused when the version lacks a parameter of the model. A refusal never changes the model.
"""

import math
import zlib
from collections.abc import Iterator, Mapping

from agile_ray.errors import SyncError
from agile_ray.weights import Bucket, TensorSpec

SIZES = {"float32": 4, "bfloat16": 2}
"""Bytes of one number, by dtype name."""


class Staging:
    """The buckets of one version that have arrived so far, in order."""

    def __init__(self, needed: Mapping[str, tuple[int, ...]]) -> None:
        """`needed`: shape of every parameter of a complete version, by its name in the checkpoint."""
        self._needed = needed
        self._arrived: list[tuple[Bucket, memoryview]] = []
        self._names: set[str] = set()
        self._count = 0

    def add(self, bucket: Bucket, content: memoryview, *, count: int) -> None:
        """Take the next of `count` buckets.

        Raises:
            SyncError: the bucket is not the next one, is corrupt, or is the last one and a parameter is missing.
        """
        expected = len(self._arrived)
        where = f"weights: bucket {bucket.index} of {count}"
        if bucket.index != expected or (expected > 0 and count != self._count):
            raise SyncError(f"{where}: buckets arrive in order, expected {expected} of {self._count or count}")
        if len(content) != bucket.size_bytes:
            raise SyncError(f"{where}: {bucket.size_bytes} bytes were announced, {len(content)} arrived")
        checksum = zlib.crc32(content)
        if checksum != bucket.checksum:
            raise SyncError(f"{where}: checksum {bucket.checksum:08x} was announced, the bytes have {checksum:08x}")
        for spec in bucket.tensors:
            self._take(spec, bucket, where)
        missing = sorted(self._needed.keys() - self._names)
        if expected == count - 1 and missing:
            raise SyncError(f"{where}: the version is not whole, {len(missing)} parameters are missing: {missing[:3]}")
        self._count = count
        self._arrived.append((bucket, content))

    def _take(self, spec: TensorSpec, bucket: Bucket, where: str) -> None:
        shape = self._needed.get(spec.name)
        if shape is None or spec.name in self._names:
            raise SyncError(f"{where}: the model has no parameter {spec.name}, or it came twice")
        if tuple(spec.shape) != shape or spec.dtype not in SIZES:
            raise SyncError(f"{where}: {spec.name} is {shape} in the model, got {spec.dtype} {tuple(spec.shape)}")
        if not 0 <= spec.offset_bytes <= bucket.size_bytes - size_bytes(spec):
            raise SyncError(f"{where}: {spec.name} reaches past the bucket's {bucket.size_bytes} bytes")
        self._names.add(spec.name)

    @property
    def whole(self) -> bool:
        """Whether every bucket of the version has arrived."""
        return 0 < self._count == len(self._arrived)

    def parameters(self) -> Iterator[tuple[TensorSpec, memoryview]]:
        """Yield every parameter with its bytes, in the order of packing."""
        for bucket, content in self._arrived:
            for spec in bucket.tensors:
                yield spec, content[spec.offset_bytes : spec.offset_bytes + size_bytes(spec)]


def size_bytes(spec: TensorSpec) -> int:
    """Bytes of one parameter."""
    return math.prod(spec.shape) * SIZES[spec.dtype]
