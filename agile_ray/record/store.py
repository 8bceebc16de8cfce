"""Sessions on disk, as Parquet: what training saw and what evaluations measured.

    segments/iteration-00012.parquet    one line per segment: tokens, credit, and the session's fields repeated;
                                        failed sessions too, with the tokens of their turns, untrained
    evaluation/ppo.parquet              one line per session, no tokens

Every file is whole or absent, and names its schema version.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    TrainingRow,
)

SCHEMA_VERSION = 4


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
# Columns that files of earlier versions lack.
_LATER = frozenset({"guess_probability"})
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
}
_TRAINING = {
    "trained": pa.bool_(),
    "credit": pa.float32(),  # null where `trained` is false
    "counterfactuals": pa.list_(_COUNTERFACTUAL),  # of the session, with its last segment
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
Record = dict[str, Cell]
"""One line of a Parquet file, by column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """One line of a segment file."""

    session: Session  # without turns; with counterfactuals only on its last segment
    segment: Segment | None  # None if the session failed before its first token
    trained: bool
    credit: float | None  # None if the segment was not trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """One session, and the rewards that the learner was given for it."""

    session: Session  # without turns and counterfactuals
    trained: bool
    rewards: Float32  # own rewards of all its segments in order, without zeros


def write(run: RunFolder, iteration: int, sessions: Sequence[Session], rows: Sequence[TrainingRow]) -> int:
    """Store an iteration: every segment of every session, trained on or not.

    Returns:
        Lines written.

    Raises:
        ContractError: a training row belongs to none of the sessions.
    """
    trained = {_key(row.segment): row for row in rows}
    records: list[Record] = []
    for session in sessions:
        common = _session_record(session)
        for segment in _all_segments(session):
            row = trained.pop(_key(segment), None)
            credit = None if row is None else row.credit
            own = _segment_record(segment) | {"trained": row is not None, "credit": credit}
            records.append(common | own | (_counterfactuals(session) if segment.last else {}))
        if not session.turns:
            records.append(common | {"index": 0, "last": True, "trained": False} | _counterfactuals(session))
    if trained:
        raise ContractError(
            f"store: every training row belongs to a session, but {len(trained)} do not, such as {min(trained)}"
        )
    _write_table(run.segment_file(iteration), records, _PLAYED | _SEGMENT | _TRAINING)
    return len(records)


def read(run: RunFolder, iteration: int) -> list[StoredSegment]:
    """The segments of an iteration, in the order in which `write` was given their sessions.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is another version's.
    """
    return [
        StoredSegment(
            session=_session(record),
            segment=_segment(record),
            trained=record["trained"],
            credit=record["credit"],
        )
        for record in table(run, iteration).to_pylist()
    ]


def sessions(run: RunFolder, iteration: int) -> list[Session]:
    """The sessions of an iteration with their turns, in the order in which `write` was given them.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is another version's.
    """
    found: list[Session] = []
    segments: list[Segment] = []
    for stored in read(run, iteration):
        if stored.segment is not None:
            segments.append(stored.segment)
        if stored.segment is None or stored.segment.last:
            found.append(replace(stored.session, turns=tuple(turns(segments))))
            segments = []
    return found


def outcomes(run: RunFolder, iteration: int) -> list[Session]:
    """The sessions of an iteration without turns and counterfactuals, which is much faster than `sessions`.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is another version's.
    """
    lines = _read_table(run.segment_file(iteration), columns=[*_PLAYED, "last"])
    return [_session(record) for record in lines.filter(lines["last"]).to_pylist()]


def table(run: RunFolder, iteration: int) -> pa.Table:
    """The segment file of an iteration, as stored.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is another version's.
    """
    return _read_table(run.segment_file(iteration))


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
        ConfigError: the file is missing or damaged, or its schema is another version's.
    """
    lines = _read_table(run.segment_file(iteration), columns=[*_PLAYED, "last", "trained", "rewards"])
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
    """Store the sessions of an evaluation, without their turns."""
    _write_table(path, [_session_record(session) for session in sessions], _PLAYED)


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
        ConfigError: the file is missing or damaged, or its schema is another version's.
    """
    return [_session(record) for record in _read_table(path).to_pylist()]


def _key(segment: Segment) -> tuple[str, int, int]:
    return segment.stream, segment.position, segment.index


def _all_segments(session: Session) -> Iterable[Segment]:
    """The segments of a session, also of a failed one, for which `cut` returns none."""
    return cut(replace(session, ending=Ending.DONE, error=None) if session.ending is Ending.FAILED else session)


def _session_record(session: Session) -> Record:
    record: Record = {name: getattr(session, name) for name in _SESSION}
    record |= {name: getattr(session.hindsight, name) for name in _HINDSIGHT}
    record["memory_sizes"] = list(session.hindsight.memory_sizes.items())
    for name in ("receipts", "abandoned", "reads", "writes"):
        record[name] = [asdict(entry) for entry in getattr(session, name)]
    return record


def _counterfactuals(session: Session) -> Record:
    return {"counterfactuals": [asdict(one) for one in session.hindsight.counterfactuals]}


def _segment_record(segment: Segment) -> Record:
    return {name: getattr(segment, name) for name in _SEGMENT}


def _session(record: dict) -> Session:
    return Session(
        **{name: record[name] for name in _SESSION if name not in _REBUILT},
        turns=(),
        hindsight=Hindsight(
            known=record["known"],
            memory_sizes=dict(record["memory_sizes"]),
            stored_similar=record["stored_similar"],
            later_similar=record["later_similar"],
            same_item=tuple(record["same_item"]),
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
    arrays = {name: np.array(record[name], dtype) for name, dtype in _DTYPES.items()}
    return Segment(
        stream=record["stream"], position=record["position"], index=record["index"], last=record["last"], **arrays
    )


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


def _write_table(path: Path, records: Sequence[Record], columns: dict[str, pa.DataType]) -> None:
    schema = pa.schema(columns, metadata={"agile_ray_schema": str(SCHEMA_VERSION)})
    table = pa.table([pa.array([r.get(name) for r in records], kind) for name, kind in columns.items()], schema=schema)
    with whole_file(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def _read_table(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    with _readable(path):
        missing = _LATER.difference(pq.read_schema(path).names)
        table = pq.read_table(path, columns=None if columns is None else [one for one in columns if one not in missing])
    found = (table.schema.metadata or {}).get(b"agile_ray_schema", b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise ConfigError(f"{path}: schema version must be {SCHEMA_VERSION}, found {found}")
    return table
