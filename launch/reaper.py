"""Ends what a killed driver leaves running; a program of its own, since it must outlive the driver.

    driver   sets MARK in its environment, then starts Ray: every process of the run inherits the mark
    reaper   waits at a pipe that only the driver holds open; when it closes, whatever still carries the mark
             has GRACE_S to end by itself, then it is killed

Ray's own helpers do notice that their head is gone, but try to report it for a minute first.
"""

import os
import signal
import sys
import time
from pathlib import Path

MARK = "AGILE_RAY_RUN"
GRACE_S = 10.0


def reap(token: str, *, grace_s: float) -> None:
    """Wait until no process carries the mark, and kill those that still do after the grace."""
    deadline = time.monotonic() + grace_s
    while left := marked(token):
        if time.monotonic() > deadline:
            for process in left:
                _kill(process)
        time.sleep(0.2)


def marked(token: str) -> list[int]:
    """Process ids of this user's other processes that were started with the mark."""
    mark = f"{MARK}={token}".encode()
    return [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if int(folder.name) != os.getpid() and mark in _environment(folder).split(b"\0")
    ]


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it is gone, or somebody else's
        return b""


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.stdin.read()
    reap(sys.argv[1], grace_s=GRACE_S)
