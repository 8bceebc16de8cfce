"""Checkpoints: Hugging Face folders that plain vLLM serves, with what resuming needs in `resume/`.

checkpoints/
    iteration-00010/          config.json, model.safetensors, tokenizer...
        resume/               learners/, lanes/, credit, state.json
    best -> iteration-00010   chosen by evaluation/choice.py
sft/                          the last checkpoint of imitation, kept for good; it may come from another run
"""

import errno
import fnmatch
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from agile_ray.errors import ConfigError, LearnerError
from agile_ray.evaluation.choice import Choice, choose
from agile_ray.record.folder import CheckpointFolder, RunFolder
from agile_ray.record.whole import link, remove_unfinished, whole_file, whole_folder
from agile_ray.record.wholeness import resume_fault, resume_sizes, weights_fault
from agile_ray.types import RunState, ValidationScore

SCHEMA = 5
"""Version of the contents of `resume/`."""
WITHOUT_LANES = 4
"""An earlier version, which is read where there are no lanes: these it kept in another way."""
KEPT = 2
"""Number of latest checkpoints that a run keeps, besides the best one on validation."""
FULL_BELOW_BYTES = 1 << 20
"""A disk with less free space counts as full if something could not be written to it."""


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


class Lanes(Protocol):
    """The part of `Rollouts` that checkpoints need."""

    def save(self, folder: Path, *, earlier: Path | None) -> None:
        """Write lanes and memories into an existing, empty folder.

        Args:
            folder: to write into; what is written there does not need `earlier`.
            earlier: such a folder of the latest checkpoint, which may not exist; None: there is no checkpoint.
        """
        ...

    def restore(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        ...


class Stateful(Protocol):
    """A part of the run whose state is a string of bytes."""

    def state(self) -> bytes: ...

    def restore(self, state: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """Contents of state.json."""

    schema: int
    state: RunState
    score: float | None
    evaluated: tuple[ValidationScore, ...] | None = None  # None in checkpoints of versions that did not keep them
    files: dict[str, int] | None = None  # what `resume_sizes` found; None in checkpoints that do not list it


_RECORD = TypeAdapter(_Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: CheckpointFolder
    state: RunState
    score: float | None  # total score on validation; None if it was not evaluated
    evaluated: tuple[ValidationScore, ...] | None  # of the run up to here, in order; None: an earlier version wrote it


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The chosen checkpoint, and why."""

    checkpoint: Checkpoint
    choice: Choice


class FolderCheckpoints:
    """Keeps the last few checkpoints of a run and the best one on validation."""

    def __init__(
        self,
        run: RunFolder,
        *,
        keep: int,
        learners: Saved,
        lanes: Lanes,
        credit: Stateful,
        resumed: Callable[[RunState], None],
        sft: CheckpointFolder,
        say: Callable[[str], None] = print,
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
            say: called with a line about a checkpoint that is skipped, or about a disk without links.
        """
        self._say = say
        self._run = run
        self._sft = sft
        self._keep = keep
        self._learners = learners
        self._lanes = lanes
        self._credit = credit
        self._resumed = resumed

    def restore(self) -> RunState:
        """Load the latest whole checkpoint, else the last one of imitation, else start from nothing.

        Raises:
            ConfigError: a checkpoint was written with another schema version; or there are checkpoints or stored
                iterations, but no checkpoint is whole.
        """
        remove_unfinished(self._run.checkpoints)
        for fault in skipped_checkpoints(self._run):
            self._say(f"skipped {fault}")
        latest = latest_checkpoint(self._run, self._sft)
        state = RunState(imitation_steps=0, iteration=0, version=0)
        if latest is not None:
            state = latest.state
            self._learners.load(latest.folder.learners)
            if latest.folder.lanes.exists():
                self._lanes.restore(latest.folder.lanes)
            if latest.folder.credit.exists():
                self._credit.restore(latest.folder.credit.read_bytes())
        self._resumed(state)
        return state

    def save(self, state: RunState, *, score: ValidationScore | None) -> None:
        """Write a checkpoint, point `best` at the best one, and delete those that are no longer kept.

        Every checkpoint lists the run's evaluations so far, because those of deleted ones still count.

        A checkpoint of the same state is kept if it is whole, and replaced if it is not.

        Raises:
            LearnerError: what the learners wrote is not whole; the earlier checkpoints are kept.
            OSError: the disk is full.
        """
        folder = self._run.checkpoint(state)
        if folder.is_complete and not checkpoint_fault(folder):
            return
        shutil.rmtree(folder.path, ignore_errors=True)
        earlier = [one for one in saved_checkpoints(self._run) if one.state.iteration < state.iteration]
        with whole_folder(folder.path) as path:
            aside = CheckpointFolder(path)
            aside.learners.mkdir(parents=True)
            with _full_disk_named(path):
                self._learners.export(path)
                self._learners.save(aside.learners)
            if state.iteration:
                aside.lanes.mkdir()
                self._lanes.save(aside.lanes, earlier=earlier[-1].folder.lanes if earlier else None)
                aside.credit.write_bytes(self._credit.state())
            record = _Record(
                schema=SCHEMA,
                state=state,
                score=None if score is None else score.total,
                evaluated=(*_evaluated(earlier), *([] if score is None else [score])),
                files=resume_sizes(aside),
            )
            aside.state.write_text(json.dumps(asdict(record)))
            if fault := checkpoint_fault(aside):
                raise LearnerError(
                    f"{folder}: the learners must have written a whole checkpoint, but {fault}; every node must see "
                    "the same run.folder. The earlier checkpoints are kept"
                )
        self._prune()

    def keep_sft(self, state: RunState) -> None:
        """Keep the checkpoint of this state, the last of imitation, as the SFT policy."""
        adopt(self._run.checkpoint(state).path, self._sft.path)

    def _point_at(self, best: Checkpoint) -> None:
        try:
            with whole_file(self._run.best_checkpoint) as link:
                link.symlink_to(best.folder.path.name)
        except ConfigError as error:  # a link is a convenience
            with suppress(OSError):
                self._run.best_checkpoint.unlink(missing_ok=True)
            self._say(f"the best checkpoint on validation is {best.folder.path.name}, without a link to it ({error})")

    def _prune(self) -> None:
        best = best_checkpoint(self._run)
        if best is not None:
            self._point_at(best.checkpoint)
        for old in saved_checkpoints(self._run)[: -self._keep]:
            if best is None or old.folder != best.checkpoint.folder:
                shutil.rmtree(old.folder.path)


def read_checkpoint(folder: CheckpointFolder) -> Checkpoint | str:
    """Read a checkpoint; why it can't be loaded if it is not whole.

    Raises:
        ConfigError: it was written with another schema version.
    """
    record = _read_record(folder)
    if isinstance(record, str):
        return record
    fault = weights_fault(folder.path) or resume_fault(folder, record.state, record.files or {})
    return fault or Checkpoint(folder=folder, state=record.state, score=record.score, evaluated=record.evaluated)


def checkpoint_fault(folder: CheckpointFolder) -> str | None:
    """Why a checkpoint can't be loaded; None if it is whole.

    Raises:
        ConfigError: it was written with another schema version.
    """
    found = read_checkpoint(folder)
    return found if isinstance(found, str) else None


def saved_checkpoints(run: RunFolder) -> list[Checkpoint]:
    """The whole checkpoints of a run, oldest first.

    Raises:
        ConfigError: one was written with another schema version.
    """
    found = [read_checkpoint(folder) for folder in run.complete_checkpoints()]
    whole = [one for one in found if isinstance(one, Checkpoint)]
    return sorted(whole, key=lambda one: (one.state.iteration, one.state.imitation_steps))


def skipped_checkpoints(run: RunFolder) -> list[str]:
    """The checkpoints of a run that are not whole: the path of each, and why."""
    found = ((folder, checkpoint_fault(folder)) for folder in run.complete_checkpoints())
    return sorted(f"{folder}: {fault}" for folder, fault in found if fault)


def latest_checkpoint(run: RunFolder, sft: CheckpointFolder) -> Checkpoint | None:
    """Where a run resumes: its latest whole checkpoint, else the last one of imitation, else None, from nothing.

    Args:
        run: its folder.
        sft: the last checkpoint of imitation; of another run, if this one is a replay.

    Raises:
        ConfigError: a checkpoint was written with another schema version; the SFT policy can't be read; or there are
            checkpoints or stored iterations, but no checkpoint is whole.
    """
    if sft.path.exists() and (fault := weights_fault(sft.path)):
        raise ConfigError(f"{sft}: must be the policy after imitation, but {fault}; put back a copy")
    if found := saved_checkpoints(run):
        return found[-1]
    start = read_checkpoint(sft) if sft.is_complete else None
    if isinstance(start, Checkpoint):
        return start
    broken = [*skipped_checkpoints(run), *([f"{sft}: {start}"] if start else [])]
    if broken or run.stored_iterations():
        raise ConfigError(
            f"{run}: resuming needs a whole checkpoint, found none ({'; '.join(broken) or 'they are gone'}); put back "
            "a copy, choose another run.name, or delete the folder to start over"
        )
    return None


def best_checkpoint(run: RunFolder) -> Best | None:
    """The checkpoint that `choose` chooses of the evaluated ones; None if none is there.

    If the chosen one is not whole, the next choice is taken.
    """
    saved = saved_checkpoints(run)
    whole = {one.state.iteration: one for one in saved}
    evaluated = _evaluated(saved)
    while evaluated:
        choice = choose(evaluated)
        if choice.iteration in whole:
            return Best(checkpoint=whole[choice.iteration], choice=choice)
        evaluated = [one for one in evaluated if one.iteration != choice.iteration]
    return None


def _evaluated(saved: Sequence[Checkpoint]) -> Sequence[ValidationScore]:
    """The evaluations up to the latest checkpoint, in order; of an earlier version, only those that are still saved."""
    if saved and saved[-1].evaluated is not None:
        return saved[-1].evaluated
    return [ValidationScore(iteration=one.state.iteration, total=one.score) for one in saved if one.score is not None]


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
            copy_function=lambda file, copy: link(Path(file), Path(copy)),
            ignore=lambda folder, names: _others(folder, names, source, only),
            dirs_exist_ok=True,
        )


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Say that the disk is full if it is: what the learners' libraries say then is not about disks."""
    try:
        yield
    except LearnerError as error:
        if shutil.disk_usage(path).free < FULL_BELOW_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _others(folder: str | os.PathLike[str], names: list[str], top: Path, only: str) -> set[str]:
    return set(names) - set(fnmatch.filter(names, only)) if Path(folder) == top else set()


def _read_record(folder: CheckpointFolder) -> _Record | str:
    try:
        content = json.loads(folder.state.read_bytes())
        schema = content["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{folder.state.name} can't be read ({type(error).__name__}: {error})"
    if schema != SCHEMA and (schema != WITHOUT_LANES or folder.lanes.exists()):
        raise ConfigError(
            f"{folder.state}: checkpoint schema must be {SCHEMA}, found {schema}; "
            "resume with the version that wrote it, or choose another run.name"
        )
    try:
        return _RECORD.validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        return f"{folder.state.name} can't be read ({key}: {problem['msg']})"
