"""Starts the processes of a fake run by forking, as Ray's raylet starts those of a real one, but in milliseconds.

The driver forks a nursery before it has threads or locks. The nursery forks what the driver asks for. The kernel kills
every process of the run with the one that started it, also a stopped one.
"""

import ctypes
import os
import pickle
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
LIMIT_S = 20.0
"""Longest wait for a process to start, or to be gone once it is killed, seconds."""
LARGEST = 1 << 16
"""Of a message to the nursery, bytes."""

Body = Callable[..., None]
"""What a process does: gets its end of a pair of sockets, and arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process, and our end of the pair of sockets."""

    pid: int
    door: socket.socket

    def kill(self) -> None:
        """Send SIGKILL; a process that is gone gets none."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Return once it is gone.

        Raises:
            TimeoutError: it is not.
        """
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.005)
        raise TimeoutError(f"process {self.pid} was killed, and must be gone within {LIMIT_S:g} s")


def fork(body: Body, *arguments: object, closes: Sequence[socket.socket] = ()) -> Child:
    """Start a process that ends with this one. Call it where there are no other threads.

    Args:
        closes: sockets of this process that the other must not hold open.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        for one in (ours, *closes):
            one.close()
        _live(body, theirs, *arguments)
    theirs.close()
    return Child(pid=pid, door=ours)


class Nursery:
    """Starts processes for a driver that has threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not os.fork():
            self._door.close()
            _live(_serve, theirs)
        theirs.close()
        self._door.settimeout(LIMIT_S)

    def start(self, body: Body, *arguments: object) -> Child:
        """Start a process."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            socket.send_fds(self._door, [pickle.dumps((body, arguments))], [theirs.fileno()])
            pid = int(self._door.recv(LARGEST))
        return Child(pid=pid, door=ours)


def _serve(door: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ends is gone at once
    while True:
        asked, files, _, _ = socket.recv_fds(door, LARGEST, 1)
        if not asked:
            return
        pid = os.fork()
        if not pid:
            door.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            body, arguments = pickle.loads(asked)
            _live(body, socket.socket(fileno=files[0]), *arguments)
        os.close(files[0])
        door.send(str(pid).encode())


def _live(body: Body, *arguments: object) -> None:
    """Be a process until the body ends; never returns."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        body(*arguments)
    except BaseException:  # noqa: BLE001  nobody above could tell
        traceback.print_exc()
    finally:
        os._exit(0)
