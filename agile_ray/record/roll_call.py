"""Finds out whether every process of a run sees the same run folder.

The driver writes a random word into the run's folder. Every rollout actor and learner rank reads it there and writes
its own line beside it, which the driver reads. On one machine this takes no time that could be noticed.
"""

import platform
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder
from agile_ray.record.whole import write_whole

PATIENCE_S = 10.0
"""Longest time that a shared disk may take to show a new file on another node, seconds."""
RULE = "run.folder must be one folder on every node"
REMEDY = "put it on a disk that all nodes mount at the same path"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollCall:
    """One check of one run folder; travels to the actors."""

    run: Path  # absolute
    folder: Path  # of this check, in the run's folder
    word: str

    def answer(self, name: str) -> None:
        """Read the driver's word and write an own line; for an actor.

        Args:
            name: of the actor, such as `rank-0`.

        Raises:
            ConfigError: this node does not see what the driver wrote, or can't write beside it.
        """
        node = platform.node()
        if (found := _read(self.folder / "driver")) != self.word:
            raise ConfigError(
                f"{self.run}: {RULE}, but {name} on node {node} does not find there what the driver wrote ({found}); "
                f"{REMEDY}"
            )
        try:
            write_whole(self.folder / name, f"{self.word} {node}".encode())
        except (ConfigError, OSError) as error:
            raise ConfigError(
                f"{self.run}: {RULE}, but {name} on node {node} can't write there ({error}); {REMEDY}"
            ) from error

    def check(self, names: Sequence[str]) -> None:
        """Read what these actors wrote; for the driver, once they have answered.

        Raises:
            ConfigError: an actor wrote into another folder.
        """
        for name in names:
            found = _read(self.folder / name)
            if found.partition(" ")[0] != self.word:
                raise ConfigError(
                    f"{self.run}: {RULE}, but the driver on node {platform.node()} does not find there what {name} "
                    f"wrote ({found}); {REMEDY}"
                )


@contextmanager
def roll_call(run: RunFolder) -> Iterator[RollCall]:
    """Begin a check of a run's folder, which is created; at the end of the block its files are deleted.

    Raises:
        ConfigError: the folder can't be written.
    """
    word = secrets.token_hex(8)
    call = RollCall(run=run.path.absolute(), folder=run.roll_call(word).absolute(), word=word)
    write_whole(call.folder / "driver", word.encode())
    try:
        yield call
    finally:
        shutil.rmtree(call.folder, ignore_errors=True)


def _read(path: Path) -> str:
    """Content of a file, or why there is none."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            if time.monotonic() > end:
                return str(error.strerror or error)
            time.sleep(0.2)
