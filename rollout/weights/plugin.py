"""vLLM calls `register` in each of its processes, through the entry point `vllm.general_plugins`.

It makes the backend `ray_shm` known there, and makes sure that no engine process outlives the actor that started it.
"""

import multiprocessing
import os
import threading
import time
from contextlib import suppress

TRANSPORT = "ray_shm"
POLL_S = 1.0


def register() -> None:
    """Register the weight-transfer backend, once per process."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    with suppress(ValueError):  # registered before
        WeightTransferEngineFactory.register_engine(TRANSPORT, "rollout.weights.shm_receiver", "RayShmEngine")
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_die_with, args=(os.getppid(),), name="die-with-parent", daemon=True).start()


def _die_with(parent: int) -> None:
    """End this process when its parent is gone, however that died: an engine alone only holds memory and cores."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)
