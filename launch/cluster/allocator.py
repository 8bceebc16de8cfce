"""The allocator of processes that compute on CPUs: jemalloc, which Ray's package brings, instead of glibc's malloc.

Learning allocates tensors of ever other sizes, megabytes each. glibc keeps those below 32 MiB in one heap, which breaks
into pieces: after an hour with 0.5 B parameters, a third of the main thread's time went into the search for a fitting
one. docs/operations.md has what jemalloc gains.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from agile_ray.config import Cluster

CONFIGURATION = "oversize_threshold:0,muzzy_decay_ms:-1"
"""For `MALLOC_CONF`: memory of large tensors is used again, and given back only when the system needs it. By default
it goes back at once, and a fifth of the time goes into getting it again."""


def variables(settings: Cluster) -> dict[str, str]:
    """Environment variables of a run's actors.

    Args:
        settings: of the cluster. GPUs have an allocator of their own.

    Returns:
        None of them where `LD_PRELOAD` says what to load, or Ray's package has no jemalloc.
    """
    package = find_spec("ray")
    if settings.device == "gpu" or package is None or package.origin is None:
        return {}
    library = Path(package.origin).parent / "core" / "libjemalloc.so"
    if not library.is_file() or os.environ.get("LD_PRELOAD", str(library)) != str(library):
        return {}
    return {"LD_PRELOAD": str(library), "MALLOC_CONF": os.environ.get("MALLOC_CONF", CONFIGURATION)}


def begin_anew(settings: Cluster) -> None:
    """Replace this process by one with the allocator, unless it has it: for what computes without actors."""
    chosen = variables(settings)
    if chosen and "LD_PRELOAD" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, os.environ | chosen)
