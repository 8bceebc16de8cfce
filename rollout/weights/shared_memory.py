"""Hands bytes to another process of this machine without a name that could be left behind."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray


@contextmanager
def shared_file(content: NDArray[np.uint8]) -> Iterator[str]:
    """Copy bytes into memory that other processes of this user can open by the yielded path.

    The path is valid inside the block; whoever mapped it by then keeps the bytes.
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
    """The bytes of a shared file. The view keeps them alive when its maker closes the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)) if size else memoryview(b"")
    finally:
        os.close(descriptor)
