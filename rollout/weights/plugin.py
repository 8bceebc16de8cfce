"""The vLLM plugin: vLLM calls `register` in each of its processes, through the entry point `vllm.general_plugins`.

It registers the weight-transfer backend `ray_shm`, and ends an engine's process when the actor that started it dies.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress

TRANSPORT = "ray_shm"
POLL_S = 1.0
PR_SET_PDEATHSIG = 1
"""Of Linux: the number of the option of `prctl` that names the signal a process gets when its parent ends."""


def register() -> None:
    """Register the weight-transfer backend and watch the parent process; vLLM may call it more than once."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    with suppress(ValueError):  # already registered
        WeightTransferEngineFactory.register_engine(TRANSPORT, "rollout.weights.shm_receiver", "RayShmEngine")
    if multiprocessing.parent_process() is not None:
        _killed_with_parent()
        threading.Thread(target=_die_with, args=(os.getppid(),), name="die-with-parent", daemon=True).start()


def _killed_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, which reaches a process that is stopped, too."""
    with suppress(OSError, AttributeError):  # elsewhere than on Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with(parent: int) -> None:
    """End this process once its parent has ended: an engine without its actor would only occupy memory and cores."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)
