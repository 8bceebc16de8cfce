"""Ends what a killed driver leaves running; a program of its own, since it must outlive the driver.

    driver   sets MARK in its environment, then starts Ray: every process of the run inherits the mark
    reaper   notes the driver's descendants while it waits at a pipe that only the driver holds open; when that closes,
             those that it noted, what these start, and those that carry the mark have GRACE_S to end by themselves,
             then they are killed, and the folder of their sockets is removed

The notes are for processes that write their title over their environment, the mark for those started since the last
note. Ray's own helpers do notice that their head is gone, but try to report it for a minute first.
"""

import select
import shutil
import sys
import time
from collections.abc import Iterable

import psutil

MARK = "AGILE_RAY_RUN"
GRACE_S = 10.0
NOTE_S = 0.5


def watch(driver: int) -> set[psutil.Process]:
    """Wait until standard input closes; returns the descendants that the driver was seen to have got meanwhile."""
    before, seen = _descendants(driver), set[psutil.Process]()
    while not select.select([sys.stdin], [], [], NOTE_S)[0]:
        seen |= _descendants(driver)
    return seen - before


def reap(token: str, *, seen: Iterable[psutil.Process] = (), grace_s: float) -> None:
    """Wait until nothing that was seen or carries the mark is left, and kill what still is after the grace."""
    deadline = time.monotonic() + grace_s
    noted = set(seen)
    while left := {process for process in noted | marked(token) if _alive(process)}:
        noted |= left.union(*(_descendants(process.pid) for process in left))  # a raylet goes on starting workers
        if time.monotonic() > deadline:
            for process in left:
                _kill(process)
        time.sleep(0.2)


def marked(token: str) -> set[psutil.Process]:
    """This user's other processes that were started with the mark."""
    everyone = psutil.process_iter(["environ"])  # environ: None where it is somebody else's
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
