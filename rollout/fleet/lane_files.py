"""Saves and restores the lanes: in files that are written once, and linked into later checkpoints.

    iteration-00010/resume/lanes/000000.5d0c81aa    every lane, with its whole memory
    iteration-00020/resume/lanes/000000.5d0c81aa    the same file, linked
                                 000001.a11e90f3    every lane, with what has changed in its memory since

Read in order, the files of a checkpoint give its lanes, without those of any other checkpoint. A lane that begins a
stream begins a memory, which is whole in the next file. Once every lane is whole in a later file, a file is not linked
into the next checkpoint. So a checkpoint writes what has changed, and holds what was written since the oldest current
stream began.

The last part of a name is random: a file of that name is the one that this object wrote or restored.
"""

import pickle
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agile_ray.record.whole import link, whole_file
from rollout.fleet.lanes import Lanes
from rollout.fleet.messages import LanePosition


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    name: str
    size: int  # bytes

    @classmethod
    def at(cls, path: Path) -> "_File":
        return cls(name=path.name, size=path.stat().st_size)

    @property
    def number(self) -> int:
        """Its place among the files."""
        return int(self.name.split(".")[0])


class LaneFiles:
    """The lanes in the checkpoints of a run."""

    def __init__(self) -> None:
        """Start without a checkpoint."""
        # Of the checkpoint that was written or restored last:
        self._files: list[_File] = []  # in order
        self._begins: dict[int, int] = {}  # by lane: number of the file with its whole memory

    def save(self, lanes: Lanes, folder: Path, *, earlier: Path | None) -> None:
        """Write the positions of all lanes at the end of the latest batch into a folder.

        Args:
            lanes: may be played meanwhile.
            folder: of all lanes in the checkpoint; it exists.
            earlier: such a folder of an earlier checkpoint. If it is the one that this object has written or restored
                last, what has not changed since is linked to it; otherwise everything is written.

        Raises:
            ConfigError: the folder can't be written.
            OSError: the disk is full, or the earlier checkpoint can't be read.
        """
        files = self._found_in(earlier)
        number = files[-1].number + 1 if files else 0
        begins = dict(self._begins)
        path = folder / f"{number:06d}.{uuid.uuid4().hex[:8]}"
        with whole_file(path) as aside, aside.open("wb") as file:
            for position in lanes.changes(whole=not files):
                pickle.dump(position, file)  # one by one, so that only one memory is held twice
                if position.state.memory.whole:
                    begins[position.number] = number
        needed = [one for one in files if one.number >= min(begins.values())]
        if earlier is not None:
            for one in needed:
                link(earlier / one.name, folder / one.name)
        lanes.keep()
        self._files, self._begins = [*needed, _File.at(path)], begins

    def restore(self, lanes: Lanes, folder: Path) -> None:
        """Put every lane back to its position in a checkpoint.

        Args:
            lanes: nobody plays them.
            folder: that `save` filled.

        Raises:
            ConfigError: the checkpoint has other lanes.
        """
        files = [_File.at(path) for path in sorted(folder.iterdir())]
        begins: dict[int, int] = {}
        found: dict[int, LanePosition] = {}
        for one in files:
            for position in _read(folder / one.name):
                if position.state.memory.whole:
                    begins[position.number] = one.number
                before = found.get(position.number)
                found[position.number] = position if before is None else before.then(position)
        lanes.restore(found)
        self._files, self._begins = files, begins

    def _found_in(self, earlier: Path | None) -> list[_File]:
        """The files of the last checkpoint if this is its folder and nothing is missing; otherwise none."""
        if earlier is None or not earlier.is_dir():
            return []
        present = {path.name: path.stat().st_size for path in earlier.iterdir()}
        return self._files if all(present.get(one.name) == one.size for one in self._files) else []


def _read(path: Path) -> Iterator[LanePosition]:
    with path.open("rb") as file:
        while file.peek(1):
            yield pickle.load(file)  # noqa: S301  our own checkpoint
