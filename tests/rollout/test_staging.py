import zlib

import numpy as np
import pytest

from agile_ray.errors import SyncError
from agile_ray.weights import Bucket, TensorSpec
from rollout.weights.shared_memory import mapped, shared_file
from rollout.weights.staging import Staging

NEEDED = {"a": (2,), "b": (1, 2), "c": (3,)}


def bucket(index: int, *tensors: tuple[str, tuple[int, ...]], dtype: str = "float32") -> tuple[Bucket, memoryview]:
    """A bucket of zeros, tightly packed."""
    specs: list[TensorSpec] = []
    size = 0
    for name, shape in tensors:
        specs.append(TensorSpec(name=name, dtype=dtype, shape=shape, offset_bytes=size))
        size += int(np.prod(shape)) * (4 if dtype == "float32" else 2)
    content = bytes(range(size))
    described = Bucket(index=index, size_bytes=size, checksum=zlib.crc32(content), tensors=tuple(specs))
    return described, memoryview(content)


def test_a_version_is_whole_after_its_last_bucket() -> None:
    staging = Staging(NEEDED)
    staging.add(*bucket(0, ("a", (2,)), ("b", (1, 2))), count=2)
    assert not staging.whole
    staging.add(*bucket(1, ("c", (3,)), dtype="bfloat16"), count=2)
    assert staging.whole
    found = {spec.name: bytes(content) for spec, content in staging.parameters()}
    assert found == {"a": bytes(range(8)), "b": bytes(range(8, 16)), "c": bytes(range(6))}


def test_buckets_out_of_order_are_refused() -> None:
    with pytest.raises(SyncError, match="bucket 1 of 2: buckets arrive in order, expected 0"):
        Staging(NEEDED).add(*bucket(1, ("c", (3,))), count=2)


def test_a_version_that_changes_its_length_is_refused() -> None:
    staging = Staging(NEEDED)
    staging.add(*bucket(0, ("a", (2,))), count=3)
    with pytest.raises(SyncError, match="expected 1 of 3"):
        staging.add(*bucket(1, ("b", (1, 2)), ("c", (3,))), count=2)


def test_one_flipped_bit_is_refused() -> None:
    described, content = bucket(0, ("a", (2,)))
    flipped = bytearray(content)
    flipped[5] ^= 1
    with pytest.raises(SyncError, match="checksum"):
        Staging(NEEDED).add(described, memoryview(flipped), count=1)


def test_a_bucket_cut_short_is_refused() -> None:
    described, content = bucket(0, ("a", (2,)))
    with pytest.raises(SyncError, match="8 bytes were announced, 7 arrived"):
        Staging(NEEDED).add(described, content[:-1], count=1)


def test_the_last_bucket_is_refused_when_a_parameter_is_missing() -> None:
    staging = Staging(NEEDED)
    staging.add(*bucket(0, ("a", (2,))), count=2)
    with pytest.raises(SyncError, match=r"not whole, 1 parameters are missing: \['b'\]"):
        staging.add(*bucket(1, ("c", (3,))), count=2)
    assert not staging.whole


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [("d", (2,), "no parameter d"), ("a", (3,), r"a is \(2,\) in the model"), ("a", (2, 1), r"a is \(2,\)")],
)
def test_a_parameter_that_the_model_does_not_have_is_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(SyncError, match=message):
        Staging(NEEDED).add(*bucket(0, (name, shape)), count=1)


def test_a_parameter_past_the_end_of_its_bucket_is_refused() -> None:
    content = bytes(8)
    spec = TensorSpec(name="a", dtype="float32", shape=(2,), offset_bytes=4)
    described = Bucket(index=0, size_bytes=8, checksum=zlib.crc32(content), tensors=(spec,))
    with pytest.raises(SyncError, match="past the bucket's 8 bytes"):
        Staging(NEEDED).add(described, memoryview(content), count=1)


def test_shared_bytes_stay_readable_after_their_creator_has_closed_them() -> None:
    content = np.arange(5000, dtype=np.uint8)
    with shared_file(content) as path:
        view = mapped(path)
    np.testing.assert_array_equal(np.frombuffer(view, np.uint8), content)
    with pytest.raises(OSError, match="No such file"):
        mapped(path)
