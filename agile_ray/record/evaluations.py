"""The sessions of a run's evaluations, one Parquet file per policy, and which checkpoint they played.

    ppo.measured.json    which weights are measured, and with what settings: written before anything is played
    ppo.parts/           what is played so far; deleted once ppo.parquet is there
    ppo.parquet          all sessions

So a run that is resumed goes on with an evaluation where it was stopped, and plays none of the same weights twice. All
but one are final evaluations, on the same test questions. `STARTING` is played on validation: the memories of lanes
that begin inside a stream are grown by its asking shares, so a resumed run grows the same ones.
"""

import pickle
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from agile_ray.config import RunConfig
from agile_ray.effects import evaluation_of
from agile_ray.errors import ConfigError
from agile_ray.evaluation.choice import Choice
from agile_ray.evaluation.plays import Part
from agile_ray.record import checkpoints, store
from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import read_json, write_json
from agile_ray.record.whole import remove_unfinished, write_whole
from agile_ray.types import RunState, Session

_CHOICE = TypeAdapter(Choice)
STARTING = "sft_validation_sampled"
"""Entry of the policy after imitation, sampled on validation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What an evaluation measures: equal ones play the same sessions."""

    state: RunState  # when the policy had these weights
    settings: dict[str, object]  # knobs that affect an evaluation, by dotted key
    schemas: tuple[int, int]  # versions of lanes and sessions on disk

    @classmethod
    def of(cls, config: RunConfig, state: RunState, *keys: str) -> "Measured":
        """The evaluation of the weights that a run had in a state; `keys` name more knobs that affect it."""
        schemas = (checkpoints.SCHEMA, store.SCHEMA_VERSION)
        return cls(state=state, settings=evaluation_of(config, *keys), schemas=schemas)


_MEASURED = TypeAdapter(Measured)


class PlayedParts:
    """What an evaluation has played so far: one file per stream, with its sessions and the lane after them."""

    def __init__(self, folder: Path | None) -> None:
        """Read what is kept.

        Args:
            folder: of the files; it need not exist. None: nothing is written.
        """
        self._folder = folder
        self.streams: dict[int, Part] = {}
        """Of each stream that has begun: everything that is played, by the stream's index."""
        if folder is None:
            return
        remove_unfinished(folder)
        for path in sorted(folder.glob("[0-9]*")):
            part = _read_part(path)
            if part is not None:
                self.streams[part.index] = part

    @property
    def keeps(self) -> bool:
        """Whether parts are written to the disk."""
        return self._folder is not None

    @property
    def sessions(self) -> int:
        """Number of sessions that are played."""
        return sum(len(part.sessions) for part in self.streams.values())

    def add(self, part: Part) -> None:
        """Join a part to the earlier ones of its stream, and keep it.

        Raises:
            ConfigError: it can't be written.
            OSError: the disk is full.
        """
        before = self.streams.get(part.index)
        if before is not None:
            part = replace(part, sessions=(*before.sessions, *part.sessions))
        self.streams[part.index] = part
        if self._folder is not None:
            write_whole(self._folder / _part_name(part.index), pickle.dumps(part))


def begin(run: RunFolder, entry: str, measured: Measured) -> bool:
    """Begin a policy's final evaluation, or go on with it. What is stored of other weights or settings is deleted.

    Args:
        run: its folder.
        entry: name of the policy.
        measured: by the evaluation.

    Returns:
        Whether it must be played; False if it is stored.
    """
    if _read_measured(run, entry) != measured:
        discard(run, entry)
        write_json(run.measured_file(entry), asdict(measured))
    if not has(run, entry):
        return True
    _discard_parts(run, entry)  # of a process that was killed after it stored the evaluation
    return False


def keep(run: RunFolder, entry: str, sessions: Sequence[Session]) -> None:
    """Store one policy's evaluation under its entry: `ppo`, `oracle`, ..."""
    store.write_sessions(run.evaluation_file(entry), sessions)
    _discard_parts(run, entry)


def discard(run: RunFolder, entry: str) -> None:
    """Delete one policy's final evaluation, finished or not."""
    run.evaluation_file(entry).unlink(missing_ok=True)
    _discard_parts(run, entry)
    run.measured_file(entry).unlink(missing_ok=True)


def discard_after(run: RunFolder, state: RunState) -> None:
    """Delete the evaluations of weights that a resumed run discards: they are trained again, and differ."""
    for entry in run.begun_entries():
        measured = _read_measured(run, entry)
        if measured is None or measured.state.follows(state):
            discard(run, entry)


def is_finished(run: RunFolder, entry: str, measured: Measured) -> bool:
    """Whether a policy's final evaluation is stored, of these weights and settings."""
    return has(run, entry) and _read_measured(run, entry) == measured


def has(run: RunFolder, entry: str) -> bool:
    """Whether a policy's evaluation is stored and readable."""
    return store.is_readable(run.evaluation_file(entry))


def read(run: RunFolder, entry: str) -> list[Session]:
    """One stored evaluation, without turns.

    Raises:
        ConfigError: it is not stored, or a newer version wrote it.
    """
    return store.read_sessions(run.evaluation_file(entry))


def read_whole(run: RunFolder, entry: str) -> list[Session]:
    """One stored evaluation with the sessions' turns.

    Raises:
        ConfigError: it is not stored, a newer version wrote it, or an older one without its tokens.
    """
    return store.read_whole_sessions(run.evaluation_file(entry))


def kept(run: RunFolder) -> dict[str, list[Session]]:
    """Every stored final evaluation, by entry, without turns.

    Raises:
        ConfigError: a newer version wrote one of them.
    """
    return {entry: read(run, entry) for entry in run.evaluated_entries() if entry != STARTING}


def keep_choice(run: RunFolder, choice: Choice) -> None:
    """Store which checkpoint the final evaluation plays."""
    run.evaluations.mkdir(parents=True, exist_ok=True)
    write_json(run.choice, asdict(choice))


def kept_choice(run: RunFolder) -> Choice | None:
    """Which checkpoint the final evaluation played; None: the last one, because none was evaluated, or not yet.

    Raises:
        ConfigError: another version wrote it.
    """
    return read_json(run.choice, _CHOICE.validate_json, expected="a choice") if run.choice.is_file() else None


def _discard_parts(run: RunFolder, entry: str) -> None:
    folder = run.evaluation_parts(entry)
    if folder.exists():
        shutil.rmtree(folder)


def _read_measured(run: RunFolder, entry: str) -> Measured | None:
    """What an evaluation measures; None if it has not begun, or another version began it."""
    path = run.measured_file(entry)
    try:
        return read_json(path, _MEASURED.validate_json, expected="what an evaluation measures")
    except (FileNotFoundError, ConfigError):
        return None


def _part_name(index: int) -> str:
    return f"{index:05d}"


def _read_part(path: Path) -> Part | None:
    """The part in a file; None if it is damaged or a copy, and its stream is played again."""
    content = path.read_bytes()
    try:
        part = pickle.loads(content)  # noqa: S301  our own file
    except Exception:  # noqa: BLE001  damage can raise anything
        return None
    return part if isinstance(part, Part) and path.name == _part_name(part.index) else None
