"""Shares bytes with another process on this machine through an anonymous file (memfd), which leaves nothing on disk."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray


@contextmanager
def shared_file(content: NDArray[np.uint8]) -> Iterator[str]:
    """Copy bytes into memory that other processes of this user can open by the yielded path.

    The path is valid inside the block. A process that has mapped the file by then keeps the bytes.
    """
    descriptor = os.memfd_create("agile-weights", os.MFD_CLOEXEC)
    try:
        view = np.ascontiguousarray(content).data
        written = 0
        while written < len(view):
            written += os.write(descriptor, view[written:])
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def mapped(path: str) -> memoryview:
    """Map the bytes of a shared file. The view stays valid after its creator has closed the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)) if size else memoryview(b"")
    finally:
        os.close(descriptor)
