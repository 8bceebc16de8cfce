"""Ends the processes that a killed driver leaves running. Runs as a separate program, because it outlives the driver.

    driver   sets MARK in its environment, then starts Ray: every process of the run inherits the mark
    reaper   records the driver's descendants while it waits on a pipe that only the driver keeps open. When the pipe
             closes, the recorded processes, their children, and all processes with the mark get GRACE_S to end by
             themselves. Then it kills them, removes the folder of their sockets, and unlinks the shared memory that
             they have mapped and that nobody else maps

Recording finds processes that overwrite their environment with a title; the mark finds those that started after the
last recording. Ray's own helpers notice that their head is gone, but first try to report it for a minute.

Who is killed leaves its named shared memory in /dev/shm: vLLM's message queues of 160 and 240 MiB, and semaphores. Maps
are read by inode, because glibc renames a semaphore after mapping it, and only when /dev/shm has changed. Files that
were there before the driver started are never touched.
"""

import os
import select
import shutil
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "AGILE_RAY_RUN"
"""Environment variable that marks the processes of a run."""
GRACE_S = 10.0
"""Time that processes have to end by themselves, seconds."""
NOTE_S = 0.5
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


class SharedMemory:
    """The files of /dev/shm that a run has made: each is in the memory map of one of its processes."""

    def __init__(self) -> None:
        """Leave alone what exists already."""
        self._before = _files()
        self._listed = self._before
        self._ours: set[int] = set()

    def note(self, processes: Iterable[psutil.Process], *, changed_only: bool = True) -> None:
        """Record what these processes have mapped, if need be only when /dev/shm has changed since the last time."""
        listed = _files()
        if changed_only and listed == self._listed:
            return
        self._listed = listed
        for process in processes:
            self._ours |= _mapped(process.pid)

    def unlink(self) -> None:
        """Remove the recorded files that no process maps."""
        ours = {name for name, inode in _files() - self._before if inode in self._ours}
        if ours:
            mapped = set[int]().union(*(_mapped(number) for number in psutil.pids()))
            for name, inode in _files():
                if name in ours and inode not in mapped:
                    with suppress(OSError):  # another user's, or gone
                        (SHARED_MEMORY / name).unlink()


def _files() -> frozenset[tuple[str, int]]:
    """Name and inode of this user's files in /dev/shm; folders hold what a user put there."""
    found: set[tuple[str, int]] = set()
    with suppress(OSError), os.scandir(SHARED_MEMORY) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
                    found.add((entry.name, status.st_ino))
    return frozenset(found)


def _mapped(process: int) -> set[int]:
    """Inodes of the files of /dev/shm in a process's memory map."""
    found: set[int] = set()
    with suppress(OSError), open(f"/proc/{process}/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if f" {SHARED_MEMORY}/" in line:  # address, permissions, offset, device, inode, path
                found.add(int(line.split(maxsplit=5)[4]))
    return found


def watch(driver: int, memory: SharedMemory | None = None) -> set[psutil.Process]:
    """Wait until standard input closes; returns the descendants that the driver started meanwhile.

    Args:
        driver: its process id.
        memory: records what these descendants share.
    """
    before, seen = _descendants(driver), set[psutil.Process]()
    while not select.select([sys.stdin], [], [], NOTE_S)[0]:
        now = _descendants(driver) - before
        seen |= now
        if memory is not None:
            memory.note(now)
    return seen


def reap(
    token: str, *, seen: Iterable[psutil.Process] = (), memory: SharedMemory | None = None, grace_s: float
) -> None:
    """Wait until no seen or marked process is left; kill those that remain after `grace_s`.

    Args:
        token: of the mark.
        seen: processes without the mark that are to end too.
        memory: its files are unlinked at the end.
        grace_s: how long the processes may take to end by themselves.
    """
    deadline = time.monotonic() + grace_s
    noted = set(seen)
    if memory is not None:
        memory.note(noted | marked(token), changed_only=False)
    while left := {process for process in noted | marked(token) if _alive(process)}:
        noted |= left.union(*(_descendants(process.pid) for process in left))  # a raylet keeps starting workers
        if memory is not None:
            memory.note(left)
        if time.monotonic() > deadline:
            for process in left:
                _kill(process)
        time.sleep(0.2)
    if memory is not None:
        memory.unlink()


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
    shared = SharedMemory()
    reap(sys.argv[1], seen=watch(int(sys.argv[2]), shared), memory=shared, grace_s=GRACE_S)
    shutil.rmtree(sys.argv[3], ignore_errors=True)
