"""Checkpoints: Hugging Face folders that plain vLLM serves, with what resuming needs in `resume/`.

checkpoints/
    iteration-00010/          config.json, model.safetensors, tokenizer...
        resume/               learners/, lanes, credit, state.json
    best -> iteration-00010   highest total score on validation
sft/                          the last checkpoint of imitation, kept for good; it may come from another run
"""

import fnmatch
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from agile_ray.errors import ConfigError
from agile_ray.record.folder import CheckpointFolder, RunFolder
from agile_ray.record.whole import remove_unfinished, whole_file, whole_folder
from agile_ray.types import RunState

SCHEMA = 3
"""Version of the contents of `resume/`."""


class Saved(Protocol):
    """The part of `Learners` that checkpoints need."""

    def export(self, folder: Path) -> None:
        """Write the policy into an existing, empty folder, as a Hugging Face folder."""
        ...

    def save(self, folder: Path) -> None:
        """Write optimizer, critic and random states into an existing, empty folder."""
        ...

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        ...


class Stateful(Protocol):
    """A part of the run whose state is a string of bytes."""

    def state(self) -> bytes: ...

    def restore(self, state: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: CheckpointFolder
    state: RunState
    score: float | None  # total score on validation; None if it was not evaluated


class FolderCheckpoints:
    """Keeps the last few checkpoints of a run and the best one on validation."""

    def __init__(
        self,
        run: RunFolder,
        *,
        keep: int,
        learners: Saved,
        lanes: Stateful,
        credit: Stateful,
        resumed: Callable[[RunState], None],
        sft: CheckpointFolder,
    ) -> None:
        """Open a run's checkpoints.

        Args:
            run: the run's folder.
            keep: number of latest checkpoints to keep.
            learners: saved and restored with every checkpoint.
            lanes: of the rollouts; saved and restored once PPO has begun.
            credit: what credit assignment remembers; saved and restored once PPO has begun.
            resumed: called with the restored state, to discard what was recorded after it.
            sft: the last checkpoint of imitation, where a run without checkpoints begins.
        """
        self._run = run
        self._sft = sft
        self._keep = keep
        self._learners = learners
        self._lanes = lanes
        self._credit = credit
        self._resumed = resumed

    def restore(self) -> RunState:
        """Load the latest checkpoint, else the last one of imitation, else start from nothing.

        Raises:
            ConfigError: the checkpoint was written with another schema version.
        """
        remove_unfinished(self._run.checkpoints)
        latest = self._latest()
        state = RunState(imitation_steps=0, iteration=0, version=0)
        if latest is not None:
            state = latest.state
            self._learners.load(latest.folder.learners)
            for part, file in ((self._lanes, latest.folder.lanes), (self._credit, latest.folder.credit)):
                if file.exists():
                    part.restore(file.read_bytes())
        self._resumed(state)
        return state

    def save(self, state: RunState, *, score: float | None) -> None:
        """Write a checkpoint, point `best` at the best one, and delete those that are no longer kept."""
        folder = self._run.checkpoint(state)
        if folder.path.exists():
            return
        with whole_folder(folder.path) as path:
            aside = CheckpointFolder(path)
            aside.learners.mkdir(parents=True)
            self._learners.export(path)
            self._learners.save(aside.learners)
            if state.iteration:
                aside.lanes.write_bytes(self._lanes.state())
                aside.credit.write_bytes(self._credit.state())
            aside.state.write_text(json.dumps({"schema": SCHEMA, "state": asdict(state), "score": score}))
        self._prune()

    def keep_sft(self, state: RunState) -> None:
        """Keep the checkpoint of this state, the last of imitation, as the SFT policy."""
        adopt(self._run.checkpoint(state).path, self._sft.path)

    def _latest(self) -> Checkpoint | None:
        if found := saved_checkpoints(self._run):
            return found[-1]
        return read_checkpoint(self._sft) if self._sft.is_complete else None

    def _prune(self) -> None:
        best = best_checkpoint(self._run)
        if best is not None:
            with whole_file(self._run.best_checkpoint) as link:
                link.symlink_to(best.folder.path.name)
        for old in saved_checkpoints(self._run)[: -self._keep]:
            if best is None or old.folder != best.folder:
                shutil.rmtree(old.folder.path)


def read_checkpoint(folder: CheckpointFolder) -> Checkpoint:
    """Read what a complete checkpoint says of itself.

    Raises:
        ConfigError: it was written with another schema version.
    """
    record = json.loads(folder.state.read_text())
    if record["schema"] != SCHEMA:
        raise ConfigError(
            f"{folder.state}: checkpoint schema must be {SCHEMA}, found {record['schema']}; "
            "resume with the version that wrote it, or choose another run.name"
        )
    return Checkpoint(folder=folder, state=RunState(**record["state"]), score=record["score"])


def saved_checkpoints(run: RunFolder) -> list[Checkpoint]:
    """The complete checkpoints of a run, oldest first.

    Raises:
        ConfigError: one was written with another schema version.
    """
    found = [read_checkpoint(folder) for folder in run.complete_checkpoints()]
    return sorted(found, key=lambda one: (one.state.iteration, one.state.imitation_steps))


def best_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The checkpoint with the highest score on validation, the earliest of equals; None if none has a score."""
    scored = [one for one in saved_checkpoints(run) if one.score is not None]
    return max(scored, key=lambda one: (one.score, -one.state.iteration), default=None)


def adopt(source: Path, target: Path, *, only: str = "*") -> None:
    """Copy a folder to a path that is free; files are hard-linked where the disk allows it.

    Args:
        source: a folder, often of another run.
        target: path of the copy, which is whole or absent.
        only: pattern of the names directly in the folder that are copied.
    """
    with whole_folder(target) as aside:
        shutil.copytree(
            source,
            aside,
            copy_function=_link,
            ignore=lambda folder, names: _others(folder, names, source, only),
            dirs_exist_ok=True,
        )


def _others(folder: str | os.PathLike[str], names: list[str], top: Path, only: str) -> set[str]:
    return set(names) - set(fnmatch.filter(names, only)) if Path(folder) == top else set()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)
