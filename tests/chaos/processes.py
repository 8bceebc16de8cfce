"""The processes of one run: which is which, and what they leave behind."""

import os
import socket
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


class Role(StrEnum):
    """What a process of a run does."""

    DRIVER = "driver"
    ACTOR = "rollout actor"
    ENGINE = "engine core"
    RANK = "learner rank"


TITLES = {"ray::RolloutActor": Role.ACTOR, "VLLM::EngineCore": Role.ENGINE, "ray::LearnerActor": Role.RANK}
"""How the titles of processes begin, that is their command lines."""


def role_of(title: str) -> Role | None:
    """The role of a process that the driver started; None: another one, such as Ray's own."""
    return next((role for start, role in TITLES.items() if title.startswith(start)), None)


class Family:
    """A driver and everything that it starts, with what these share and listen on. Call `look` often."""

    def __init__(self, driver: int, *, compiles_in: Path) -> None:
        """`compiles_in`: folder of DeepSpeed's extensions, which no other run uses."""
        self._driver = psutil.Process(driver)
        self._compiles_in = compiles_in
        self._members = {self._driver}
        self._inodes: set[int] = set()
        self._ports: set[int] = set()

    def look(self) -> None:
        """Note who is there now."""
        for parent in [one for one in self._members if alive(one)]:
            with suppress(psutil.Error):
                self._members.update(parent.children(recursive=True))
        living = {one.pid for one in self._members if alive(one)}
        self._inodes.update(*(_mapped(pid) for pid in living))
        with suppress(psutil.Error):
            listening = psutil.net_connections(kind="tcp")
            self._ports.update(
                one.laddr.port for one in listening if one.status == psutil.CONN_LISTEN and one.pid in living
            )

    def members(self, role: Role) -> list[psutil.Process]:
        """Those that live and have this role, by process id."""
        if role is Role.DRIVER:
            return [self._driver] if alive(self._driver) else []
        return sorted(
            (one for one in self._members if alive(one) and role_of(title(one)) is role), key=lambda one: one.pid
        )

    def end(self) -> None:
        """Kill what is left, after a run that hangs."""
        self.look()
        for one in self._members:
            with suppress(psutil.Error):
                one.kill()

    def left(self, *, within_s: float) -> list[str]:
        """What is still there after this time at the latest, one line each."""
        end = time.monotonic() + within_s
        while (found := self._left()) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def _left(self) -> list[str]:
        files = [path for path in SHARED_MEMORY.glob("*") if path.is_file() and path.stat().st_ino in self._inodes]
        return [
            *(f"process {one.pid} {title(one)[:60]}" for one in self._members if alive(one)),
            *(f"port {port}" for port in sorted(self._ports) if not _is_free(port)),
            *(f"shared memory {path}" for path in files),
            *(f"compile lock {path}" for path in self._compiles_in.rglob("lock")),
        ]


def title(process: psutil.Process) -> str:
    """A process's command line, which Ray and vLLM overwrite with a title; "" once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def alive(process: psutil.Process) -> bool:
    """Whether a process runs or is stopped; one that only waits to be collected does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _mapped(pid: int) -> set[int]:
    """Inodes of the files of /dev/shm in a process's memory map; glibc renames files after mapping them."""
    found: set[int] = set()
    with suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if f" {SHARED_MEMORY}/" in line:  # address, permissions, offset, device, inode, path
                found.add(int(line.split(maxsplit=5)[4]))
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def environment(root: Path, extensions: Path) -> dict[str, str]:
    """Of a run: this checkout's packages, a cluster of its own, and extensions that no other run compiles."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return own | {"PYTHONPATH": str(root), "TORCH_EXTENSIONS_DIR": str(extensions), "PYTHONUNBUFFERED": "1"}
