"""Ends the processes that a killed driver leaves running. Runs as a separate program, because it outlives the driver.

    driver   sets MARK in its environment, then starts Ray: every process of the run inherits the mark
    reaper   records the driver's descendants while it waits on a pipe that only the driver keeps open. When the pipe
             closes, the recorded processes, their children, and all processes with the mark get GRACE_S to end by
             themselves. Then it kills them and removes the folder of their sockets

Recording finds processes that overwrite their environment with a title; the mark finds those that started after the
last recording. Ray's own helpers notice that their head is gone, but first try to report it for a minute.
"""

import select
import shutil
import sys
import time
from collections.abc import Iterable

import psutil

MARK = "AGILE_RAY_RUN"
"""Environment variable that marks the processes of a run."""
GRACE_S = 10.0
"""Time that processes have to end by themselves, seconds."""
NOTE_S = 0.5
"""Time between two recordings, seconds."""


def watch(driver: int) -> set[psutil.Process]:
    """Wait until standard input closes; returns the descendants that the driver started in the meantime."""
    before, seen = _descendants(driver), set[psutil.Process]()
    while not select.select([sys.stdin], [], [], NOTE_S)[0]:
        seen |= _descendants(driver)
    return seen - before


def reap(token: str, *, seen: Iterable[psutil.Process] = (), grace_s: float) -> None:
    """Wait until no seen or marked process is left; kill those that remain after `grace_s`."""
    deadline = time.monotonic() + grace_s
    noted = set(seen)
    while left := {process for process in noted | marked(token) if _alive(process)}:
        noted |= left.union(*(_descendants(process.pid) for process in left))  # a raylet keeps starting workers
        if time.monotonic() > deadline:
            for process in left:
                _kill(process)
        time.sleep(0.2)


def marked(token: str) -> set[psutil.Process]:
    """This user's other processes that have the mark in their environment."""
    everyone = psutil.process_iter(["environ"])  # environ: None for other users' processes
    return {process for process in everyone if (process.info["environ"] or {}).get(MARK) == token} - {psutil.Process()}


def _descendants(process: int) -> set[psutil.Process]:
    try:
        return {*psutil.Process(process).children(recursive=True)} - {psutil.Process()}
    except psutil.NoSuchProcess:
        return set()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    reap(sys.argv[1], seen=watch(int(sys.argv[2])), grace_s=GRACE_S)
    shutil.rmtree(sys.argv[3], ignore_errors=True)
