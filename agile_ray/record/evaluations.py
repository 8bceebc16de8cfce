"""The sessions of a run's evaluations, one Parquet file per policy, and which checkpoint they played.

    ppo.measured.json    which weights are measured, and with what settings: written before anything is played
    ppo.parts/           what is played so far, a file per part of a stream; deleted once ppo.parquet is there
    ppo.parquet          all sessions

So a run that is resumed goes on with an evaluation where it was stopped, and plays none of the same weights twice. All
but one are final evaluations, on the same test questions. `STARTING` is played on validation: the memories of lanes
that begin inside a stream are grown by its asking shares, so a resumed run grows the same ones.
"""

import pickle
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from agile_ray.record.parquet.columns import SCHEMA_VERSION
from agile_ray.record.parquet.tables import is_readable
from agile_ray.record.whole import remove_unfinished, write_whole
from agile_ray.types import RunState, Session

_CHOICE = TypeAdapter(Choice)
_PART = re.compile(r"[0-9]{5,}\.[0-9]{5,}")
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
        schemas = (checkpoints.SCHEMA, SCHEMA_VERSION)
        return cls(state=state, settings=evaluation_of(config, *keys), schemas=schemas)


_MEASURED = TypeAdapter(Measured)


class PlayedParts:
    """What an evaluation has played so far.

    Part 2 of stream 3 is in the file `00003.00002`: its sessions, and what has changed in the lane since part 1.
    """

    def __init__(self, folder: Path | None) -> None:
        """Read what is kept. Of a stream with a damaged part, that part and the later ones are deleted.

        Args:
            folder: of the files; it need not exist. None: nothing is written.
        """
        self._folder = folder
        self.streams: dict[int, Part] = {}
        """Of each stream that has begun: everything that is played, by the stream's index."""
        self._kept: Counter[int] = Counter()  # parts of each stream
        if folder is None:
            return
        remove_unfinished(folder)
        for path in sorted(path for path in folder.glob("*") if _PART.fullmatch(path.name)):
            index = int(path.name.split(".")[0])
            part = _read_part(path, index) if path == self._next(folder, index) else None
            if part is None:
                path.unlink()
            else:
                self._join(part)

    def _next(self, folder: Path, index: int) -> Path:
        """The file of a stream's next part."""
        return folder / f"{index:05d}.{self._kept[index]:05d}"

    def _join(self, part: Part) -> None:
        before = self.streams.get(part.index)
        self.streams[part.index] = part if before is None else before.then(part)
        self._kept[part.index] += 1

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
        if self._folder is not None:
            write_whole(self._next(self._folder, part.index), pickle.dumps(part))
        self._join(part)


def begin(run: RunFolder, entry: str, measured: Measured) -> bool:
    """Begin a policy's evaluation, or go on with it. What is stored of other weights or settings is deleted.

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


def is_kept(run: RunFolder, entry: str, measured: Measured) -> bool:
    """Whether a policy's evaluation of these weights, with these settings, is stored and readable."""
    return _read_measured(run, entry) == measured and has(run, entry)


def discard(run: RunFolder, entry: str) -> None:
    """Delete one policy's evaluation, finished or not."""
    run.evaluation_file(entry).unlink(missing_ok=True)
    _discard_parts(run, entry)
    run.measured_file(entry).unlink(missing_ok=True)


def discard_after(run: RunFolder, state: RunState) -> None:
    """Delete the evaluations of weights that a resumed run discards: they are trained again, and differ."""
    for entry in run.begun_entries():
        measured = _read_measured(run, entry)
        if measured is None or measured.state.follows(state):
            discard(run, entry)


def has(run: RunFolder, entry: str) -> bool:
    """Whether a policy's evaluation is stored and readable."""
    return is_readable(run.evaluation_file(entry))


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


def _read_part(path: Path, index: int) -> Part | None:
    """The part of a stream in a file; None if it is damaged, and it is played again."""
    content = path.read_bytes()
    try:
        part = pickle.loads(content)  # noqa: S301  our own file
    except Exception:  # noqa: BLE001  damage can raise anything
        return None
    return part if isinstance(part, Part) and part.index == index else None
