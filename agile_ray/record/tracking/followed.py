"""Reads a history while the recorder writes it. What waits to be sent waits there, so nothing else has to hold it."""

import os
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from agile_ray.record import history
from agile_ray.record.history import Event, Line
from agile_ray.record.tracking.written import Key, Written, key_of


class Followed:
    """The lines of a history that a program was not given yet.

    A resumption replaces the file, without the lines of the work that it discards. Lines of that work that were given
    before stay in the program, which deletes none. Their steps are not given again, and counted as `redone`.
    """

    def __init__(self, path: Path, written: Written, *, resumes: bool = False) -> None:
        """Prepare to read from the start.

        Args:
            path: of the history, which need not exist.
            written: what the program was given.
            resumes: the file that is there now is about to be replaced, and is not read.
        """
        self.redone = 0
        self._path = path
        self._written = written
        self._passed = _identity(path) if resumes else None
        self._file: BinaryIO | None = None
        self._seen: Counter[Key] = Counter()
        self._resumed = False  # a resumption of this process was given, so what follows may be done again

    def next(self) -> Line | None:
        """The next line that is to be given; None if there is none yet.

        Raises:
            ConfigError: a complete line is not a history line.
        """
        self._look()
        while self._file is not None and (line := self._read()) is not None:
            key = key_of(line)
            self._seen[key] += 1
            if self._seen[key] > self._written.times(key):
                self._resumed |= line.event is Event.RESUME
                return line
            self.redone += self._resumed
        return None

    def close(self) -> None:
        """Close the file; nothing is read after that."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _look(self) -> None:
        """Begin anew if the file was replaced."""
        now = _identity(self._path)
        if now is None or now == self._passed:
            return
        if self._file is not None and _identity_of(os.fstat(self._file.fileno())) == now:
            return
        self.close()
        self._file, self._passed = self._path.open("rb"), None
        self._seen.clear()
        self._resumed = False

    def _read(self) -> Line | None:
        """The next complete line; the recorder may be writing it."""
        if self._file is None:
            return None
        start = self._file.tell()
        content = self._file.readline()
        if content.endswith(b"\n"):
            return history.parse(content, where=str(self._path))
        self._file.seek(start)
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        return _identity_of(path.stat())
    except FileNotFoundError:
        return None


def _identity_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
