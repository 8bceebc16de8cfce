"""Which lines of a history a program was given: `tracking/mlflow.jsonl` in the run's folder, one batch per line.

A batch is noted before it is sent, so a process that is killed meanwhile leaves a batch that is never sent twice.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from agile_ray.record.history import Event, Line
from agile_ray.record.json_files import read_json_lines

Key = tuple[Event, str, int]
"""What tells a line from others: its event, its name and its step. Only resumptions and ends of one step are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Lines that were sent in one request."""

    where: str  # the server or the folder
    part: str  # "imitation" or "ppo"
    id: str  # of the program's run
    lines: tuple[Key, ...]


_BATCH = TypeAdapter(Batch)


class Written:
    """What one program was given of one run, at one server or in one folder."""

    def __init__(self, path: Path | None, *, where: str) -> None:
        """Read what earlier processes noted; another server begins with nothing.

        Args:
            path: of the file, which need not exist; None: it is kept in memory alone.
            where: the server or the folder.

        Raises:
            ConfigError: a line of the file is no batch.
        """
        self._path = path
        self._where = where
        self._ids: dict[str, str] = {}
        self._sizes: Counter[str] = Counter()
        self._lines: Counter[Key] = Counter()
        self._noted = False  # by this process
        self._before = 0  # bytes of the file without the latest batch
        found = [] if path is None else read_json_lines(path, _BATCH.validate_json, expected="a batch of lines")
        for batch in found:
            if batch.where == where:
                self._count(batch)

    def id(self, part: str) -> str | None:
        """Of the program's run for a part; None: it has none yet."""
        return self._ids.get(part)

    def size(self, part: str) -> int:
        """How many lines a part was given."""
        return self._sizes[part]

    def times(self, key: Key) -> int:
        """How often it was given a line with this key."""
        return self._lines[key]

    def note(self, part: str, id: str, lines: Sequence[Line]) -> None:
        """Note that these lines are sent next.

        Raises:
            OSError: the file can't be written.
        """
        batch = Batch(where=self._where, part=part, id=id, lines=tuple(map(key_of, lines)))
        if self._path is not None:
            with self._path.open("ab", buffering=0) as file:
                if not self._noted:  # a process that was killed may have left a part of a line
                    file.truncate(self._path.read_bytes().rfind(b"\n") + 1)
                self._before = os.fstat(file.fileno()).st_size
                self._noted = True
                file.write(_BATCH.dump_json(batch) + b"\n")
        self._count(batch)

    def undo(self) -> None:
        """Forget the latest batch, which was refused; what is in memory stays.

        Raises:
            OSError: the file can't be written.
        """
        if self._path is not None:
            os.truncate(self._path, self._before)

    def _count(self, batch: Batch) -> None:
        self._ids[batch.part] = batch.id
        self._sizes[batch.part] += len(batch.lines)
        self._lines.update(batch.lines)


def key_of(line: Line) -> Key:
    """The key of a line."""
    return line.event, line.name, line.imitation_steps if line.event is Event.IMITATION else line.iteration
