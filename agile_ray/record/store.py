"""Sessions on disk, as Parquet: what training saw and what evaluations measured.

    segments/iteration-00012.parquet    one line per segment: tokens, credit, what the learner computed for each action
                                        token, and the session's fields repeated; failed sessions too, with the
                                        tokens of their turns, untrained
    evaluation/ppo.parquet              likewise one line per segment, without what the learner adds; a script's
                                        sessions have one line each, without tokens

Every file is whole or absent, and names its schema version. Of an older version's file, the columns that it has are
read.

Dimensions: T = tokens of one segment, A = action tokens of one segment.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from agile_ray.errors import ConfigError, ContractError
from agile_ray.record.folder import RunFolder
from agile_ray.record.whole import whole_file
from agile_ray.segments import cut, turns
from agile_ray.types import (
    Counterfactual,
    Ending,
    Float32,
    Hindsight,
    MemoryUse,
    Origin,
    Receipt,
    Segment,
    Session,
    TokenScores,
    TrainingRow,
)

SCHEMA_VERSION = 4
"""Of the columns below: a column that is added, removed or means something else makes it larger."""
VERSION_KEY = "agile_ray_schema"
"""Where a file's metadata names its schema version."""


class DamagedFileError(ConfigError):
    """A Parquet file is cut off or damaged."""


_USES = pa.list_(pa.struct({"kind": pa.string(), "writer": pa.int32(), "similarity": pa.float64()}))
_RECEIPT = pa.struct(
    {
        "key": pa.string(),
        "price": pa.int32(),
        "source": pa.string(),
        "latency_s": pa.float64(),
        "advice": pa.string(),
        "answer": pa.string(),
    }
)
_COUNTERFACTUAL = pa.struct(
    {"writers": pa.list_(pa.int32()), "similarity": pa.float64(), "prefix_ids": pa.list_(pa.int32())}
)
_SESSION = {
    "stream": pa.string(),
    "position": pa.int32(),
    "stream_length": pa.int32(),
    "question_id": pa.string(),
    "kind": pa.string(),
    "topic": pa.string(),
    "price": pa.int32(),
    "ending": pa.string(),
    "error": pa.string(),
    "answer": pa.string(),
    "origin": pa.string(),
    "correct": pa.bool_(),
    "receipts": pa.list_(_RECEIPT),
    "abandoned": pa.list_(_RECEIPT),
    "reads": _USES,
    "writes": _USES,
    "remarks": pa.list_(pa.string()),
}
_HINDSIGHT = {
    "known": pa.bool_(),
    "memory_sizes": pa.map_(pa.string(), pa.int32()),
    "stored_similar": pa.int32(),
    "later_similar": pa.int32(),
    "same_item": pa.list_(pa.int32()),
    "guess_probability": pa.float64(),
    "decided_after": pa.int32(),
}
_PLAYED = _SESSION | _HINDSIGHT
# Fields of a session that Parquet returns in another type.
_REBUILT = frozenset({"ending", "origin", "receipts", "abandoned", "reads", "writes", "remarks"})
_SEGMENT = {
    "index": pa.int32(),
    "last": pa.bool_(),
    "token_ids": pa.list_(pa.int32()),
    "action_mask": pa.list_(pa.bool_()),
    "turn_ids": pa.list_(pa.int32()),
    "behavior_logprobs": pa.list_(pa.float32()),
    "versions": pa.list_(pa.int32()),
    "rewards": pa.list_(pa.float32()),
    "ask_probabilities": pa.list_(pa.float32()),  # [T], null where no turn begins; null if the policy gave none at all
}
_TRAINING = {
    "trained": pa.bool_(),
    "credit": pa.float32(),  # null where `trained` is false
    "counterfactuals": pa.list_(_COUNTERFACTUAL),  # of the session, with its last segment
}
LEARNED = dict.fromkeys((*TokenScores.__slots__, "advantages"), pa.list_(pa.float16()))
"""What the learner computed for each action token before the update, [A]; null where `trained` is false. For people to
look at, so half precision is enough: 11 significant bits. Advantages are whitened over the update; `advantage_mean` and
`advantage_std` of its line in the history undo that."""
_PLAYED_SEGMENT = _PLAYED | _SEGMENT
_STORED_SEGMENT = _PLAYED_SEGMENT | _TRAINING | LEARNED
_ADDED = frozenset({"same_item", "guess_probability", "ask_probabilities", *LEARNED})
"""Columns that files of version 3 lack; null in what is read from them."""
_DTYPES = {
    "token_ids": np.int32,
    "action_mask": np.bool_,
    "turn_ids": np.int32,
    "behavior_logprobs": np.float32,
    "versions": np.int32,
    "rewards": np.float32,
    "ask_probabilities": np.float32,
}

Cell = (
    str
    | int
    | float
    | bool
    | None
    | Sequence[int]
    | Sequence[str]
    | Sequence[tuple[str, int]]
    | Sequence[Mapping[str, object]]
    | NDArray[np.generic]
)
Record = dict[str, Cell]
"""One line of a Parquet file, by column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """One line of a segment file."""

    session: Session  # without turns; with counterfactuals only on its last segment
    segment: Segment | None  # None if the session failed before its first token
    trained: bool
    credit: float | None  # None if the segment was not trained on
    scores: TokenScores | None  # likewise, or if it is not stored
    advantages: Float32 | None  # [A], likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """One session, and the rewards that the learner was given for it."""

    session: Session  # without turns and counterfactuals
    trained: bool
    rewards: Float32  # own rewards of all its segments in order, without zeros


def write(
    run: RunFolder,
    iteration: int,
    sessions: Sequence[Session],
    rows: Sequence[TrainingRow],
    advantages: Sequence[Float32] = (),
) -> int:
    """Store an iteration: every segment of every session, trained on or not.

    Args:
        run: its folder.
        iteration: number of the iteration.
        sessions: all that were collected.
        rows: what was trained on.
        advantages: [A] of each row; may be empty if they are not known.

    Returns:
        Lines written.

    Raises:
        ContractError: a training row belongs to none of the sessions, or there are not as many advantages as rows.
    """
    if advantages and len(advantages) != len(rows):
        raise ContractError(f"store: every row has its advantages, got {len(advantages)} for {len(rows)} rows")
    trained = {_key(row.segment): _learned_record(row) for row in rows}
    for row, own in zip(rows, advantages, strict=False):
        trained[_key(row.segment)]["advantages"] = own.astype(np.float16)
    records: list[Record] = []
    for session in sessions:
        for segment, record in _lines(session):
            learned = None if segment is None else trained.pop(_key(segment), None)
            record |= {"trained": False} if learned is None else learned
            records.append(record | (_counterfactuals(session) if record["last"] else {}))
    if trained:
        raise ContractError(
            f"store: every training row belongs to a session, but {len(trained)} do not, such as {min(trained)}"
        )
    _write_table(run.segment_file(iteration), records, _STORED_SEGMENT)
    return len(records)


def read(run: RunFolder, iteration: int) -> list[StoredSegment]:
    """The segments of an iteration, in the order in which `write` was given their sessions.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    return [
        StoredSegment(
            session=_session(record),
            segment=_segment(record),
            trained=record["trained"],
            credit=record["credit"],
            scores=_scores(record),
            advantages=None if record["advantages"] is None else np.array(record["advantages"], np.float32),
        )
        for record in table(run, iteration).to_pylist()
    ]


def sessions(run: RunFolder, iteration: int) -> list[Session]:
    """The sessions of an iteration with their turns, in the order in which `write` was given them.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    return _with_turns(_read_table(run.segment_file(iteration), _PLAYED_SEGMENT | _TRAINING, may_lack=_ADDED))


def outcomes(run: RunFolder, iteration: int) -> list[Session]:
    """The sessions of an iteration without turns and counterfactuals, which is much faster than `sessions`.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    return _last_lines(run.segment_file(iteration))


def table(run: RunFolder, iteration: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The segment file of an iteration, as stored.

    Args:
        run: its folder.
        iteration: number of the iteration.
        columns: which ones; default: all, those that an older version did not store are null.

    Raises:
        ConfigError: the file is missing or damaged, its schema is a newer version's, or an older version wrote it
            without one of the `columns`.
    """
    path = run.segment_file(iteration)
    if columns is None:
        return _read_table(path, _STORED_SEGMENT, may_lack=_ADDED)
    return _read_table(path, {name: _STORED_SEGMENT[name] for name in columns})


def count_segments(run: RunFolder, iteration: int) -> int:
    """Number of lines in an iteration's segment file.

    Raises:
        ConfigError: the file is missing or cut off.
    """
    with _readable(path := run.segment_file(iteration)):
        return pq.read_metadata(path).num_rows


def earned(run: RunFolder, iteration: int) -> list[Earned]:
    """The sessions of an iteration like `outcomes`, each with its rewards.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    columns = {name: _STORED_SEGMENT[name] for name in (*_PLAYED, "last", "trained", "rewards")}
    lines = _read_table(run.segment_file(iteration), columns, may_lack=_ADDED)
    rewards = lines["rewards"].combine_chunks()
    values, offsets = rewards.values.to_numpy(), rewards.offsets.to_numpy()
    found: list[Earned] = []
    start = offsets[0]
    for record, end in zip(lines.drop_columns("rewards").to_pylist(), offsets[1:], strict=True):
        if record["last"]:  # the segments of a session are adjacent
            own = values[start:end]
            found.append(Earned(session=_session(record), trained=record["trained"], rewards=own[own != 0]))
            start = end
    return found


def write_sessions(path: Path, sessions: Sequence[Session]) -> None:
    """Store the sessions of an evaluation with their turns."""
    _write_table(path, [record for session in sessions for _, record in _lines(session)], _PLAYED_SEGMENT)


def is_readable(path: Path) -> bool:
    """Whether a Parquet file exists and is not cut off."""
    try:
        with _readable(path):
            pq.read_metadata(path)
    except ConfigError:
        return False
    return True


def read_sessions(path: Path) -> list[Session]:
    """The sessions of an evaluation, without their turns.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    return _last_lines(path)


def read_whole_sessions(path: Path) -> list[Session]:
    """The sessions of an evaluation with their turns.

    Raises:
        ConfigError: the file is missing or damaged, its schema is a newer version's, or an older version wrote it
            without tokens.
    """
    return _with_turns(_read_table(path, _PLAYED_SEGMENT, may_lack=frozenset({"same_item", "guess_probability"})))


def _last_lines(path: Path) -> list[Session]:
    """Each session once, without turns. Evaluations of version 3 have no column `last`: each line is a session."""
    lines = _read_table(path, _PLAYED | {"last": pa.bool_()}, may_lack=_ADDED | {"last"})
    return [_session(record) for record in lines.filter(pc.fill_null(lines["last"], True)).to_pylist()]


def _with_turns(lines: pa.Table) -> list[Session]:
    """Each session once, with its turns; its segments are adjacent."""
    found: list[Session] = []
    segments: list[Segment] = []
    for record in lines.to_pylist():
        segment = _segment(record)
        if segment is not None:
            segments.append(segment)
        if segment is None or segment.last:
            found.append(replace(_session(record), turns=tuple(turns(segments))))
            segments = []
    return found


def _key(segment: Segment) -> tuple[str, int, int]:
    return segment.stream, segment.position, segment.index


def _all_segments(session: Session) -> Iterable[Segment]:
    """The segments of a session, also of a failed one, for which `cut` returns none."""
    return cut(replace(session, ending=Ending.DONE, error=None) if session.ending is Ending.FAILED else session)


def _lines(session: Session) -> Iterator[tuple[Segment | None, Record]]:
    """Yield the line of each segment; of a session without turns, one line without tokens."""
    common = _session_record(session)
    for segment in _all_segments(session):
        yield segment, common | _segment_record(segment)
    if not session.turns:
        yield None, common | {"index": 0, "last": True}


def _session_record(session: Session) -> Record:
    record: Record = {name: getattr(session, name) for name in _SESSION}
    record |= {name: getattr(session.hindsight, name) for name in _HINDSIGHT}
    record["memory_sizes"] = list(session.hindsight.memory_sizes.items())
    record["same_item"] = session.hindsight.same_item or None  # unknown; else it has the session's own position
    for name in ("receipts", "abandoned", "reads", "writes"):
        record[name] = [asdict(entry) for entry in getattr(session, name)]
    return record


def _counterfactuals(session: Session) -> Record:
    return {"counterfactuals": [asdict(one) for one in session.hindsight.counterfactuals]}


def _segment_record(segment: Segment) -> Record:
    record: Record = {name: getattr(segment, name) for name in _SEGMENT}
    if np.isnan(segment.ask_probabilities).all():
        record["ask_probabilities"] = None
    return record


def _learned_record(row: TrainingRow) -> Record:
    scores = {name: getattr(row.scores, name).astype(np.float16) for name in TokenScores.__slots__}
    return {"trained": True, "credit": row.credit, **scores}


def _session(record: dict) -> Session:
    return Session(
        **{name: record[name] for name in _SESSION if name not in _REBUILT},
        turns=(),
        hindsight=Hindsight(
            known=record["known"],
            memory_sizes=dict(record["memory_sizes"]),
            stored_similar=record["stored_similar"],
            later_similar=record["later_similar"],
            same_item=tuple(record["same_item"] or ()),
            guess_probability=record.get("guess_probability"),
            decided_after=record["decided_after"],
            counterfactuals=tuple(_counterfactual(entry) for entry in record.get("counterfactuals") or ()),
        ),
        ending=Ending(record["ending"]),
        origin=None if record["origin"] is None else Origin(record["origin"]),
        receipts=tuple(Receipt(**entry) for entry in record["receipts"]),
        abandoned=tuple(Receipt(**entry) for entry in record["abandoned"]),
        reads=tuple(MemoryUse(**entry) for entry in record["reads"]),
        writes=tuple(MemoryUse(**entry) for entry in record["writes"]),
        remarks=tuple(record["remarks"]),
    )


def _counterfactual(entry: dict) -> Counterfactual:
    return Counterfactual(
        writers=tuple(entry["writers"]),
        similarity=entry["similarity"],
        prefix_ids=np.array(entry["prefix_ids"], np.int32),
    )


def _segment(record: dict) -> Segment | None:
    if record["token_ids"] is None:
        return None
    if record["ask_probabilities"] is None:
        record["ask_probabilities"] = [None] * len(record["token_ids"])
    arrays = {name: np.array(record[name], dtype) for name, dtype in _DTYPES.items()}  # a null becomes NaN
    return Segment(
        stream=record["stream"], position=record["position"], index=record["index"], last=record["last"], **arrays
    )


def _scores(record: dict) -> TokenScores | None:
    if record["own_values"] is None:
        return None
    return TokenScores(**{name: np.array(record[name], np.float32) for name in TokenScores.__slots__})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; was the run stopped before it was written?") from error
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedFileError(
            f"{path}: must be a whole Parquet file, found {path.stat().st_size} bytes that can't be read ({reason}); "
            "put back a copy"
        ) from error


def _write_table(path: Path, records: Sequence[Record], columns: Mapping[str, pa.DataType]) -> None:
    schema = pa.schema(columns, metadata={VERSION_KEY: str(SCHEMA_VERSION)})
    cells = {name: [record.get(name) for record in records] for name in columns}
    # `from_pandas`: NaN, which stands for unknown, becomes null, so that equal columns compare as equal.
    arrays = [pa.array(cells[name], kind, from_pandas=_holds_floats(kind)) for name, kind in columns.items()]
    # Exponents repeat, mantissas do not, so their bytes are stored apart.
    floats = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name, kind in columns.items() if _holds_floats(kind)}
    with whole_file(path) as aside:
        pq.write_table(
            pa.table(arrays, schema=schema),
            aside,
            compression="zstd",
            compression_level=9,
            use_dictionary=False,  # it hides from zstd what lines share
            column_encoding=floats,
        )


def _holds_floats(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_floating(kind.value_type)


def _read_table(path: Path, columns: Mapping[str, pa.DataType], *, may_lack: frozenset[str] = frozenset()) -> pa.Table:
    """Read columns of a file; those of `may_lack` that it does not have are null.

    Raises:
        ConfigError: the file is missing or damaged, its schema is a newer version's, or an older version wrote it
            without a column.
    """
    with _readable(path):
        schema = pq.read_schema(path)
    version = _version(path, schema)
    lacking = [name for name in columns if name not in schema.names]
    missed = [name for name in lacking if name not in may_lack]
    if missed:
        raise ConfigError(
            f"{path}: must have {', '.join(missed)}, but was stored with schema {version}, which has no such column; "
            f"train again to store it (schema {SCHEMA_VERSION})"
        )
    with _readable(path):
        found = pq.read_table(path, columns=[name for name in columns if name not in lacking])
    for name in lacking:
        found = found.append_column(name, pa.nulls(found.num_rows, columns[name]))
    return found.select(list(columns))


def _version(path: Path, schema: pa.Schema) -> int:
    """Version of a file's schema; 0 if it names none.

    Raises:
        ConfigError: it is newer than this code's.
    """
    named = (schema.metadata or {}).get(VERSION_KEY.encode(), b"0").decode()
    if not named.isdecimal() or int(named) > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: schema version must be at most {SCHEMA_VERSION}, found {named}; read it with the agile-ray that "
            "wrote it"
        )
    return int(named)
