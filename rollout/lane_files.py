"""Saves and restores the lanes of one actor: in files that are written once, and linked into later checkpoints.

    iteration-00010/resume/lanes/0.000000.5d0c81aa    actor 0: every lane, with its whole memory
    iteration-00020/resume/lanes/0.000000.5d0c81aa    the same file, linked
                                 0.000001.a11e90f3    every lane, with what has changed in its memory since

Read in order, the files of a checkpoint give its lanes, without those of any other checkpoint. A lane that begins a
stream begins a memory, which is whole in the next file. Once every lane is whole in a later file, a file is not linked
into the next checkpoint. So a checkpoint writes what has changed, and holds what was written since the oldest current
stream began.

The last part of a name is random: a file of that name is the one that this actor wrote or restored.
"""

import pickle
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from agile_ray.agent.memory import Moment
from agile_ray.record.whole import link, whole_file
from rollout.player import LanePosition, Player


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    name: str
    size: int  # bytes

    @classmethod
    def at(cls, path: Path) -> "_File":
        return cls(name=path.name, size=path.stat().st_size)

    @property
    def number(self) -> int:
        """Its place among the files of its actor."""
        return int(self.name.split(".")[1])


class LaneFiles:
    """The lanes of one actor in the checkpoints of a run."""

    def __init__(self, player: Player, *, actor: int) -> None:
        """Start without a checkpoint.

        Args:
            player: of the lanes.
            actor: its index.
        """
        self._player = player
        self._actor = actor
        # Of the checkpoint that was written or restored last:
        self._files: list[_File] = []  # in order
        self._begins: dict[int, int] = {}  # by lane: number of the file with its whole memory
        self._moments: dict[int, Moment] = {}  # by lane: of its memory

    def save(self, folder: Path, *, earlier: Path | None) -> dict[str, int]:
        """Write the lanes into a folder; call it only between two collections.

        Args:
            folder: of all lanes in the checkpoint; it exists.
            earlier: such a folder of an earlier checkpoint. If it is the one that this object has written or restored
                last, what has not changed since is linked to it; otherwise everything is written.

        Returns:
            Sizes of this actor's files in the folder in bytes, by name.

        Raises:
            ConfigError: the folder can't be written.
            OSError: the disk is full, or the earlier checkpoint can't be read.
        """
        files = self._found_in(earlier)
        number = files[-1].number + 1 if files else 0
        begins = dict(self._begins)
        path = folder / f"{self._actor}.{number:06d}.{uuid.uuid4().hex[:8]}"
        with whole_file(path) as aside, aside.open("wb") as file:
            for position in self._player.positions(self._moments if files else None):
                pickle.dump(position, file)  # one by one, so that only one memory is held twice
                if position.state.memory.whole:
                    begins[position.number] = number
        needed = [one for one in files if one.number >= min(begins.values())]
        if earlier is not None:
            for one in needed:
                link(earlier / one.name, folder / one.name)
        self._remember([*needed, _File.at(path)], begins)
        return {one.name: one.size for one in self._files}

    def restore(self, folder: Path) -> None:
        """Put every lane back to its position in a checkpoint.

        Args:
            folder: that `save` filled.

        Raises:
            ConfigError: the checkpoint has other lanes or other streams.
        """
        files = [_File.at(path) for path in sorted(folder.glob(f"{self._actor}.*"))]
        begins: dict[int, int] = {}
        lanes: dict[int, LanePosition] = {}
        for one in files:
            for position in _read(folder / one.name):
                if position.state.memory.whole:
                    begins[position.number] = one.number
                before = lanes.get(position.number)
                lanes[position.number] = position if before is None else _later(before, position)
        self._player.restore(list(lanes.values()))
        self._remember(files, begins)

    def _found_in(self, earlier: Path | None) -> list[_File]:
        """The files of the last checkpoint if this is its folder and nothing is missing; otherwise none."""
        if earlier is None:
            return []
        present = {path.name: path.stat().st_size for path in earlier.glob(f"{self._actor}.*")}
        return self._files if all(present.get(one.name) == one.size for one in self._files) else []

    def _remember(self, files: list[_File], begins: dict[int, int]) -> None:
        self._files, self._begins, self._moments = files, begins, self._player.moments()


def saved_actors(folder: Path) -> set[int]:
    """Indices of the actors whose lanes a checkpoint holds; `folder` is the one that `LaneFiles.save` filled."""
    return {int(path.name.split(".")[0]) for path in folder.glob("[0-9]*")}


def _read(path: Path) -> Iterator[LanePosition]:
    with path.open("rb") as file:
        while file.peek(1):
            yield pickle.load(file)  # noqa: S301  our own checkpoint


def _later(before: LanePosition, position: LanePosition) -> LanePosition:
    return replace(position, state=before.state.then(position.state))
