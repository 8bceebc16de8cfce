"""The message that announces one bucket to an engine's workers: the loader writes it, the receiver reads it."""

from dataclasses import asdict, dataclass

from agile_ray.weights import Bucket, TensorSpec


@dataclass(kw_only=True)  # not frozen: the receiver mixes it with a dataclass of vLLM, which is not frozen
class BucketMessage:
    """One bucket of a version, and the shared file with its bytes. Plain values only: it crosses processes."""

    path: str  # of the shared file, for any process of this user on this machine
    count: int  # buckets of the version
    index: int  # of this bucket, from 0
    size_bytes: int
    checksum: int  # crc32 of the bytes
    tensors: list[tuple[str, str, list[int], int]]  # name, dtype, shape, offset in bytes

    @classmethod
    def of(cls, bucket: Bucket, *, path: str, count: int) -> "BucketMessage":
        """Announce a bucket whose bytes are in the shared file at `path`; the version has `count` buckets."""
        return cls(
            path=path,
            count=count,
            index=bucket.index,
            size_bytes=bucket.size_bytes,
            checksum=bucket.checksum,
            tensors=[(spec.name, spec.dtype, list(spec.shape), spec.offset_bytes) for spec in bucket.tensors],
        )

    def fields(self) -> dict[str, object]:
        """The message as the dictionary that vLLM sends; `BucketMessage(**fields)` rebuilds it."""
        return asdict(self)

    def bucket(self) -> Bucket:
        """The bucket as the learner described it."""
        specs = (
            TensorSpec(name=name, dtype=dtype, shape=tuple(shape), offset_bytes=offset)
            for name, dtype, shape, offset in self.tensors
        )
        return Bucket(index=self.index, size_bytes=self.size_bytes, checksum=self.checksum, tensors=tuple(specs))
