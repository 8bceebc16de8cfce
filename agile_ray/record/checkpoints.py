"""Checkpoints: Hugging Face folders that plain vLLM serves, with what resuming needs in `resume/`.

    checkpoints/
        iteration-00010/          config.json, model.safetensors, tokenizer...
            resume/               learners' own files, lanes, state.json
        best -> iteration-00010   highest total score on validation
    sft/                          the last checkpoint of imitation, kept for good; a run may begin with another run's

A checkpoint is written aside and renamed, so that one that has its name is whole.
"""

import fnmatch
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from agile_ray.errors import ConfigError
from agile_ray.types import RunState

SCHEMA = 2
"""Version of what `resume/` holds."""


class Saved(Protocol):
    """What of the learners a checkpoint keeps."""

    def export(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder into an existing, empty folder."""
        ...

    def save(self, folder: Path) -> None:
        """Write optimizer, critic and random states into an existing, empty folder."""
        ...

    def load(self, folder: Path) -> None: ...


class Lanes(Protocol):
    """What of the rollouts a checkpoint keeps."""

    def state(self) -> bytes: ...

    def restore(self, state: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One that is whole."""

    folder: Path
    state: RunState
    score: float | None  # total on validation


class FolderCheckpoints:
    """Keeps the last few checkpoints of a run and the best on validation."""

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        learners: Saved,
        lanes: Lanes,
        resumed: Callable[[RunState], None],
        sft: Path,
    ) -> None:
        """Open a run's checkpoints.

        Args:
            resumed: told the state that was restored, to discard what was written after it.
            sft: folder of the policy after imitation.
        """
        self.folder = folder
        self._sft = sft
        self._keep = keep
        self._learners = learners
        self._lanes = lanes
        self._resumed = resumed

    def restore(self) -> RunState:
        """Load the latest checkpoint, or the policy after imitation, or start at nothing.

        Raises:
            ConfigError: it was written by another schema version.
        """
        for aside in self.folder.glob(".writing-*"):
            shutil.rmtree(aside)
        found = every(self.folder) or every(self._sft.parent, pattern=self._sft.name)
        state = RunState(imitation_steps=0, iteration=0, version=0)
        if found:
            latest = found[-1]
            state = latest.state
            self._learners.load(latest.folder / "resume" / "learners")
            lanes = latest.folder / "resume" / "lanes"
            if lanes.exists():
                self._lanes.restore(lanes.read_bytes())
        self._resumed(state)
        return state

    def save(self, state: RunState, *, score: float | None) -> None:
        """Write aside, rename, point `best` at it if it is, drop what is no longer kept."""
        folder = self.folder / _name(state)
        if folder.exists():
            return
        aside = self.folder / f".writing-{uuid.uuid4().hex[:8]}"
        try:
            (aside / "resume" / "learners").mkdir(parents=True)
            self._learners.export(aside)
            self._learners.save(aside / "resume" / "learners")
            if state.iteration:
                (aside / "resume" / "lanes").write_bytes(self._lanes.state())
            record = {"schema": SCHEMA, "state": asdict(state), "score": score}
            (aside / "resume" / "state.json").write_text(json.dumps(record))
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._prune()

    def keep_sft(self, state: RunState) -> None:
        """Keep the checkpoint of this state, the last of imitation, as the SFT policy."""
        adopt(self.folder / _name(state), self._sft)

    def _prune(self) -> None:
        found = every(self.folder)
        leader = best(self.folder)
        if leader is not None:
            link = self.folder / f".writing-{uuid.uuid4().hex[:8]}"
            link.symlink_to(leader.folder.name)
            os.replace(link, self.folder / "best")
        for old in found[: -self._keep]:
            if leader is None or old.folder != leader.folder:
                shutil.rmtree(old.folder)


def _name(state: RunState) -> str:
    if state.iteration:
        return f"iteration-{state.iteration:05d}"
    return f"imitation-{state.imitation_steps:05d}"


def adopt(source: Path, target: Path, *, only: str = "*") -> None:
    """Take over a folder of another run, at once or not at all; its files are shared where the disk can do that.

    Args:
        only: pattern of the names in the folder that are taken.
    """
    aside = target.with_name(f".writing-{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        source, aside, copy_function=_link, ignore=lambda folder, names: _others(folder, names, source, only)
    )
    aside.rename(target)


def _others(folder: str | os.PathLike[str], names: list[str], top: Path, only: str) -> set[str]:
    return set(names) - set(fnmatch.filter(names, only)) if Path(folder) == top else set()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)


def every(folder: Path, *, pattern: str = "i*-*") -> list[Checkpoint]:
    """The whole checkpoints of a run, oldest first.

    Raises:
        ConfigError: one was written by another schema version.
    """
    found: list[Checkpoint] = []
    for record_path in folder.glob(f"{pattern}/resume/state.json"):
        record = json.loads(record_path.read_text())
        if record["schema"] != SCHEMA:
            raise ConfigError(
                f"{record_path}: checkpoint schema is {record['schema']}, this version reads {SCHEMA}; "
                "resume with the version that wrote it, or choose another run.name"
            )
        found.append(
            Checkpoint(folder=record_path.parent.parent, state=RunState(**record["state"]), score=record["score"])
        )
    return sorted(found, key=lambda one: (one.state.iteration, one.state.imitation_steps))


def best(folder: Path) -> Checkpoint | None:
    """The checkpoint with the highest score on validation, the earliest of equals; None if none was scored."""
    scored = [one for one in every(folder) if one.score is not None]
    return max(scored, key=lambda one: (one.score, -one.state.iteration), default=None)
