"""Sessions on disk, as Parquet: what training saw and what evaluations measured.

    segments/iteration-00012.parquet    one row per segment: tokens, credit, and the session's fields repeated.
                                        Failed sessions stay too, with the tokens of their turns, untrained
    evaluation/ppo.parquet              one row per session, no tokens

A file is written aside, then renamed: one that has its final name is whole. Every file names its schema version.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agile_ray.errors import ConfigError, ContractError
from agile_ray.record.folder import segment_file
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
    TrainingRow,
)

SCHEMA_VERSION = 3

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
    "decided_after": pa.int32(),
}
_PLAYED = _SESSION | _HINDSIGHT
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
}
_TRAINING = {
    "trained": pa.bool_(),
    "credit": pa.float32(),  # null where `trained` is false
    "counterfactuals": pa.list_(_COUNTERFACTUAL),  # of the session, in its last row
}
_DTYPES = {
    "token_ids": np.int32,
    "action_mask": np.bool_,
    "turn_ids": np.int32,
    "behavior_logprobs": np.float32,
    "versions": np.int32,
    "rewards": np.float32,
}

Cell = str | int | float | bool | None | Sequence[str] | Sequence[tuple[str, int]] | Sequence[Mapping[str, object]]
Row = dict[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """One row of a segment file."""

    session: Session  # its `turns` are empty; its counterfactuals are on its last segment
    segment: Segment | None  # None if the session failed before its first token
    trained: bool
    credit: float | None  # None if it was not trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """One session, and the rewards that the learner saw of it."""

    session: Session  # without turns and counterfactuals
    trained: bool
    rewards: Float32  # own rewards of all its segments, in order, zeros left out


def write(folder: Path, iteration: int, sessions: Sequence[Session], rows: Sequence[TrainingRow]) -> int:
    """Store an iteration: every segment of every session, trained on or not.

    Returns:
        Rows written.

    Raises:
        ContractError: a row belongs to none of the sessions.
    """
    trained = {_place(row.segment): row for row in rows}
    records: list[Row] = []
    for session in sessions:
        common = _session_record(session)
        for segment in _all_segments(session):
            row = trained.pop(_place(segment), None)
            credit = None if row is None else row.credit
            own = _segment_record(segment) | {"trained": row is not None, "credit": credit}
            records.append(common | own | (_imagined(session) if segment.last else {}))
        if not session.turns:
            records.append(common | {"index": 0, "last": True, "trained": False} | _imagined(session))
    if trained:
        raise ContractError(f"store: every row belongs to a session, but {len(trained)} do not: {min(trained)}")
    _write_table(segment_file(folder, iteration), records, _PLAYED | _SEGMENT | _TRAINING)
    return len(records)


def read(folder: Path, iteration: int) -> list[StoredSegment]:
    """What `write` stored.

    Raises:
        ConfigError: the file is missing, or its schema is another version's.
    """
    return [
        StoredSegment(
            session=_session(row),
            segment=_segment(row),
            trained=row["trained"],
            credit=row["credit"],
        )
        for row in table(folder, iteration).to_pylist()
    ]


def sessions(folder: Path, iteration: int) -> list[Session]:
    """The sessions that `write` stored, turns and all, in its order.

    Raises:
        ConfigError: the file is missing, or its schema is another version's.
    """
    found: list[Session] = []
    segments: list[Segment] = []
    for row in read(folder, iteration):
        if row.segment is not None:
            segments.append(row.segment)
        if row.segment is None or row.segment.last:
            found.append(replace(row.session, turns=tuple(turns(segments))))
            segments = []
    return found


def outcomes(folder: Path, iteration: int) -> list[Session]:
    """What `sessions` reads, without turns and counterfactuals, in a fraction of the time.

    Raises:
        ConfigError: the file is missing, or its schema is another version's.
    """
    rows = _read_table(segment_file(folder, iteration), columns=[*_PLAYED, "last"])
    return [_session(row) for row in rows.filter(rows["last"]).to_pylist()]


def before(folder: Path, iteration: int, *, window: int) -> list[list[Session]]:
    """Outcomes of the `window - 1` iterations up to and with this one, as far as there are any, the oldest first.

    Raises:
        ConfigError: a file is missing, or its schema is another version's.
    """
    return [outcomes(folder, number) for number in range(max(1, iteration + 2 - window), iteration + 1)]


def table(folder: Path, iteration: int) -> pa.Table:
    """A stored iteration as it lies there, a row for each segment.

    Raises:
        ConfigError: the file is missing, or its schema is another version's.
    """
    return _read_table(segment_file(folder, iteration))


def earned(folder: Path, iteration: int) -> list[Earned]:
    """What `outcomes` reads, each with its rewards.

    Raises:
        ConfigError: the file is missing, or its schema is another version's.
    """
    rows = _read_table(segment_file(folder, iteration), columns=[*_PLAYED, "last", "trained", "rewards"])
    rewards = rows["rewards"].combine_chunks()
    values, offsets = rewards.values.to_numpy(), rewards.offsets.to_numpy()
    found: list[Earned] = []
    start = offsets[0]
    for row, end in zip(rows.drop_columns("rewards").to_pylist(), offsets[1:], strict=True):
        if row["last"]:  # the segments of a session follow one another
            own = values[start:end]
            found.append(Earned(session=_session(row), trained=row["trained"], rewards=own[own != 0]))
            start = end
    return found


def write_sessions(path: Path, sessions: Sequence[Session]) -> None:
    """Store an evaluation: one row per session, without tokens."""
    _write_table(path, [_session_record(session) for session in sessions], _PLAYED)


def read_sessions(path: Path) -> list[Session]:
    """What `write_sessions` stored; the turns are gone.

    Raises:
        ConfigError: the file is missing, or its schema is another version's.
    """
    return [_session(row) for row in _read_table(path).to_pylist()]


def _place(segment: Segment) -> tuple[str, int, int]:
    return segment.stream, segment.position, segment.index


def _all_segments(session: Session) -> Iterable[Segment]:
    """Segments of a failed session too, which `cut` leaves out because nothing is trained on them."""
    return cut(replace(session, ending=Ending.DONE, error=None) if session.ending is Ending.FAILED else session)


def _session_record(session: Session) -> Row:
    record: Row = {name: getattr(session, name) for name in _SESSION}
    record |= {name: getattr(session.hindsight, name) for name in _HINDSIGHT}
    record["memory_sizes"] = list(session.hindsight.memory_sizes.items())
    for name in ("receipts", "abandoned", "reads", "writes"):
        record[name] = [asdict(entry) for entry in getattr(session, name)]
    return record


def _imagined(session: Session) -> Row:
    return {"counterfactuals": [asdict(one) for one in session.hindsight.counterfactuals]}


def _segment_record(segment: Segment) -> Row:
    return {name: getattr(segment, name) for name in _SEGMENT}


def _session(row: dict) -> Session:
    return Session(
        **{name: row[name] for name in _SESSION if name not in _REBUILT},
        turns=(),
        hindsight=Hindsight(
            known=row["known"],
            memory_sizes=dict(row["memory_sizes"]),
            stored_similar=row["stored_similar"],
            later_similar=row["later_similar"],
            decided_after=row["decided_after"],
            counterfactuals=tuple(_counterfactual(entry) for entry in row.get("counterfactuals") or ()),
        ),
        ending=Ending(row["ending"]),
        origin=None if row["origin"] is None else Origin(row["origin"]),
        receipts=tuple(Receipt(**entry) for entry in row["receipts"]),
        abandoned=tuple(Receipt(**entry) for entry in row["abandoned"]),
        reads=tuple(MemoryUse(**entry) for entry in row["reads"]),
        writes=tuple(MemoryUse(**entry) for entry in row["writes"]),
        remarks=tuple(row["remarks"]),
    )


def _counterfactual(entry: dict) -> Counterfactual:
    return Counterfactual(
        writers=tuple(entry["writers"]),
        similarity=entry["similarity"],
        prefix_ids=np.array(entry["prefix_ids"], np.int32),
    )


def _segment(row: dict) -> Segment | None:
    if row["token_ids"] is None:
        return None
    arrays = {name: np.array(row[name], dtype) for name, dtype in _DTYPES.items()}
    return Segment(stream=row["stream"], position=row["position"], index=row["index"], last=row["last"], **arrays)


def _write_table(path: Path, records: Sequence[Row], columns: dict[str, pa.DataType]) -> None:
    schema = pa.schema(columns, metadata={"agile_ray_schema": str(SCHEMA_VERSION)})
    table = pa.table([pa.array([r.get(name) for r in records], kind) for name, kind in columns.items()], schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    pq.write_table(table, aside, compression="zstd")
    os.replace(aside, path)


def _read_table(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        table = pq.read_table(path, columns=columns)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; was the run stopped before it was written?") from error
    found = (table.schema.metadata or {}).get(b"agile_ray_schema", b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise ConfigError(f"{path}: schema version must be {SCHEMA_VERSION}, found {found}")
    return table
