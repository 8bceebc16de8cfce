"""What this machine has, found without starting anything."""

import os
import shutil
import socket
import subprocess

import psutil

from launch.plan.machines import Node

LOOK_S = 2.0
"""Longest wait for the tool that lists this machine's GPUs, seconds."""


def this_machine() -> Node:
    """This machine, with the GPUs that nvidia-smi lists."""
    gpus = _gpus()
    return Node(
        name=socket.gethostname(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        gpus=len(gpus),
        gpu_bytes=min((size for _, size in gpus), default=0),
        gpu_kind=gpus[0][0] if gpus else "",
    )


def _gpus() -> list[tuple[str, int]]:
    """Name and bytes of each GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    words = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LOOK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    pairs = (line.rpartition(",") for line in done.stdout.splitlines())
    return [(name.strip(), int(size) << 20) for name, _, size in pairs if size.strip().isdigit()]
