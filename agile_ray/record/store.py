"""Sessions on disk, as Parquet: what training saw and what evaluations measured.

    segments/iteration-00012.parquet    one line per segment: tokens, credit, what the learner computed for each action
                                        token, and the session's fields repeated; failed sessions too, with the
                                        tokens of their turns, untrained
    evaluation/ppo.parquet              likewise one line per segment, without what the learner adds; a script's
                                        sessions have one line each, without tokens

Every file is whole or absent, and names its schema version (parquet/tables.py). Of an older version's file, the columns
that it has are read. parquet/columns.py lists all columns.

Dimensions: A = action tokens of one segment.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from agile_ray.errors import ContractError
from agile_ray.record.folder import RunFolder
from agile_ray.record.parquet.columns import (
    ADDED,
    PLAYED,
    PLAYED_SEGMENT,
    STORED_SEGMENT,
    TRAINING,
    Record,
    counterfactuals_of,
    learned_of,
    lines_of,
    scores_of,
    segment_of,
    session_of,
    shares_of,
)
from agile_ray.record.parquet.functions import compute as pc
from agile_ray.record.parquet.tables import count_rows, read_table, write_table
from agile_ray.segments import turns
from agile_ray.types import CreditShare, Float32, Segment, Session, TokenScores, TrainingRow


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """One line of a segment file, or of an evaluation."""

    session: Session  # without turns; with counterfactuals only on its last segment
    segment: Segment | None  # None if the session failed before its first token
    trained: bool
    credit: float | None  # None if the segment was not trained on
    credit_shares: tuple[CreditShare, ...] | None  # likewise, or if the file's version has none
    scores: TokenScores | None  # likewise
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
    trained = {_key(row.segment): learned_of(row) for row in rows}
    for row, own in zip(rows, advantages, strict=False):
        trained[_key(row.segment)]["advantages"] = own.astype(np.float16)
    records: list[Record] = []
    for session in sessions:
        for segment, record in lines_of(session):
            learned = None if segment is None else trained.pop(_key(segment), None)
            record |= {"trained": False} if learned is None else learned
            records.append(record | (counterfactuals_of(session) if record["last"] else {}))
    if trained:
        raise ContractError(
            f"store: every training row belongs to a session, but {len(trained)} do not, such as {min(trained)}"
        )
    write_table(run.segment_file(iteration), records, STORED_SEGMENT)
    return len(records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Some sessions of one stream: of a large file, reading these takes a fraction of the time of all."""

    stream: str
    positions: Collection[int]


def read(run: RunFolder, iteration: int, chosen: Chosen | None = None) -> list[StoredSegment]:
    """The segments of an iteration, in the order in which `write` was given their sessions.

    Args:
        run: its folder.
        iteration: number of the iteration.
        chosen: read only these sessions.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    return [
        StoredSegment(
            session=session_of(record),
            segment=segment_of(record),
            trained=record["trained"],
            credit=record["credit"],
            credit_shares=shares_of(record),
            scores=scores_of(record),
            advantages=None if record["advantages"] is None else np.array(record["advantages"], np.float32),
        )
        for record in _only(table(run, iteration), chosen).to_pylist()
    ]


def sessions(run: RunFolder, iteration: int) -> list[Session]:
    """The sessions of an iteration with their turns, in the order in which `write` was given them.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    return _with_turns(read_table(run.segment_file(iteration), PLAYED_SEGMENT | TRAINING, may_lack=ADDED))


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
        return read_table(path, STORED_SEGMENT, may_lack=ADDED)
    return read_table(path, {name: STORED_SEGMENT[name] for name in columns})


def count_segments(run: RunFolder, iteration: int) -> int:
    """Number of lines in an iteration's segment file.

    Raises:
        ConfigError: the file is missing or cut off.
    """
    return count_rows(run.segment_file(iteration))


def earned(run: RunFolder, iteration: int) -> list[Earned]:
    """The sessions of an iteration like `outcomes`, each with its rewards.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    columns = {name: STORED_SEGMENT[name] for name in (*PLAYED, "last", "trained", "rewards")}
    lines = read_table(run.segment_file(iteration), columns, may_lack=ADDED)
    rewards = lines["rewards"].combine_chunks()
    values, offsets = rewards.values.to_numpy(), rewards.offsets.to_numpy()
    found: list[Earned] = []
    start = offsets[0]
    for record, end in zip(lines.drop_columns("rewards").to_pylist(), offsets[1:], strict=True):
        if record["last"]:  # the segments of a session are adjacent
            own = values[start:end]
            found.append(Earned(session=session_of(record), trained=record["trained"], rewards=own[own != 0]))
            start = end
    return found


def write_sessions(path: Path, sessions: Sequence[Session]) -> None:
    """Store the sessions of an evaluation with their turns."""
    write_table(path, [record for session in sessions for _, record in lines_of(session)], PLAYED_SEGMENT)


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
    return _with_turns(
        read_table(path, PLAYED_SEGMENT, may_lack=frozenset({"same_item", "guess_probability", "graded"}))
    )


def read_evaluation(path: Path, chosen: Chosen | None = None) -> list[StoredSegment]:
    """The segments of an evaluation, in order; of an older version's file, sessions without tokens.

    Args:
        path: of the file.
        chosen: read only these sessions.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    lines = read_table(path, PLAYED_SEGMENT, may_lack=frozenset(PLAYED_SEGMENT.keys() - PLAYED.keys()) | ADDED)
    return [
        StoredSegment(
            session=session_of(record),
            segment=segment_of(record),
            trained=False,
            credit=None,
            credit_shares=None,
            scores=None,
            advantages=None,
        )
        for record in _only(lines, chosen).to_pylist()
    ]


def _only(lines: pa.Table, chosen: Chosen | None) -> pa.Table:
    if chosen is None:
        return lines
    positions = pa.array(sorted(chosen.positions), pa.int32())
    return lines.filter(pc.and_(pc.equal(lines["stream"], chosen.stream), pc.is_in(lines["position"], positions)))


def _last_lines(path: Path) -> list[Session]:
    """Each session once, without turns. Evaluations of version 3 have no column `last`: each line is a session."""
    lines = read_table(path, PLAYED | {"last": pa.bool_()}, may_lack=ADDED | {"last"})
    return [session_of(record) for record in lines.filter(pc.fill_null(lines["last"], True)).to_pylist()]


def _with_turns(lines: pa.Table) -> list[Session]:
    """Each session once, with its turns; its segments are adjacent."""
    found: list[Session] = []
    segments: list[Segment] = []
    for record in lines.to_pylist():
        segment = segment_of(record)
        if segment is not None:
            segments.append(segment)
        if segment is None or segment.last:
            found.append(replace(session_of(record), turns=tuple(turns(segments))))
            segments = []
    return found


def _key(segment: Segment) -> tuple[str, int, int]:
    return segment.stream, segment.position, segment.index
