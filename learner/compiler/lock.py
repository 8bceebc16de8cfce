"""Lets one process at a time compile DeepSpeed's extensions.

torch's own lock is a file that exists: who is killed while compiling leaves it, and later starts wait for it for ever.
`Baton` locks the same file with flock, which ends with its owner.
"""

import fcntl
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from agile_ray.errors import DeadlineError
from learner.compiler.folder import KEY

BUILD_S = 600.0
"""Longest wait for another process that compiles, seconds; DeepSpeed's extension takes one minute of one core."""
POLL_S = 0.1


def compile_alone(folder: Path) -> None:
    """Let this process compile in the folder, one process at a time, with the tools of its own environment."""
    os.environ[KEY] = str(folder)
    tools = os.path.dirname(sys.executable)  # ninja is there, also if the environment is not activated
    if tools not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join(filter(None, (tools, os.environ.get("PATH"))))
    from torch.utils import cpp_extension

    cpp_extension.__dict__["FileBaton"] = Baton


class Baton:
    """Replaces `torch.utils.file_baton.FileBaton`: a lock that ends with its owner."""

    def __init__(self, lock_file_path: str) -> None:
        self._path = lock_file_path
        self._file = -1

    def try_acquire(self) -> bool:
        """Wait until no other process compiles here; always returns True.

        torch then builds. What another process has built meanwhile is up to date, so that ninja does nothing.

        Raises:
            DeadlineError: another process compiles for longer than `BUILD_S`.
        """
        deadline = time.monotonic() + BUILD_S
        while not self._lock():
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"learner: {self._path}: another process has been compiling for {BUILD_S:g} s; end it, or set "
                    f"{KEY} to another folder"
                )
            time.sleep(POLL_S)
        if os.fstat(self._file).st_size:  # its owner did not live to remove it
            _end_compilers(os.path.dirname(os.path.abspath(self._path)))
        os.write(self._file, b"compiling\n")
        return True

    def _lock(self) -> bool:
        file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(self._path)):
                self._file = file
                return True
        except (BlockingIOError, FileNotFoundError):  # held by a living process; or removed by the one before
            pass
        os.close(file)
        return False

    def wait(self) -> None:
        """Do nothing: `try_acquire` has waited."""

    def release(self) -> None:
        """Remove the file, as torch does, then let the next process go on."""
        with suppress(FileNotFoundError):  # somebody emptied the folder
            os.remove(self._path)
        os.close(self._file)


def _end_compilers(folder: str) -> None:
    """End the ninja of a killed process in this folder, and its compilers: they would write the same files."""
    for process in psutil.process_iter(["name", "cwd"]):
        if process.info["name"] == "ninja" and process.info["cwd"] == folder:
            with suppress(psutil.Error):
                for one in (process, *process.children(recursive=True)):
                    one.kill()
