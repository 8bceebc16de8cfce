"""The columns of Parquet files that hold sessions, and their conversion to types and back.

Dimensions: T = tokens of one segment, A = action tokens of one segment.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agile_ray.segments import cut
from agile_ray.types import (
    Counterfactual,
    CreditShare,
    Ending,
    Hindsight,
    MemoryUse,
    Origin,
    Outcome,
    Receipt,
    Segment,
    Session,
    TokenScores,
    TrainingRow,
)

SCHEMA_VERSION = 6
"""Of the columns below: a column that is added, removed or means something else makes it larger."""

_USES = pa.list_(pa.struct({"kind": pa.string(), "writer": pa.int32(), "similarity": pa.float64()}))
_RECEIPT = pa.struct(
    {
        "key": pa.string(),
        "price": pa.int32(),
        "source": pa.string(),
        "latency_s": pa.float64(),
        "advice": pa.string(),
        "answer": pa.string(),
        "rule": pa.string(),
        "outcome": pa.string(),
        "words": pa.string(),
    }
)
_COUNTERFACTUAL = pa.struct(
    {"writers": pa.list_(pa.int32()), "similarity": pa.float64(), "prefix_ids": pa.list_(pa.int32())}
)
_SHARE = pa.struct({"reader": pa.int32(), "amount": pa.float32()})
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
    "graded": pa.int32(),
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
PLAYED = _SESSION | _HINDSIGHT
"""Of a session, whatever its tokens."""
# Fields of a session that Parquet returns in another type.
_REBUILT = frozenset({"ending", "graded", "origin", "receipts", "abandoned", "reads", "writes", "remarks"})
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
TRAINING = {  # of a segment that an iteration collected
    "trained": pa.bool_(),
    "credit": pa.float32(),  # null where `trained` is false
    "credit_shares": pa.list_(_SHARE),  # null where `credit` is
    "counterfactuals": pa.list_(_COUNTERFACTUAL),  # of the session, with its last segment
}
LEARNED = dict.fromkeys((*TokenScores.__slots__, "advantages"), pa.list_(pa.float16()))
"""What the learner computed for each action token before the update, [A]; null where `trained` is false. For people to
look at, so half precision is enough: 11 significant bits. Advantages are whitened over the update; `advantage_mean` and
`advantage_std` of its line in the history undo that."""
PLAYED_SEGMENT = PLAYED | _SEGMENT
"""Of a segment and its session, as evaluations store them."""
STORED_SEGMENT = PLAYED_SEGMENT | TRAINING | LEARNED
"""The same, as training stores them."""
ADDED = frozenset({"same_item", "guess_probability", "graded", "ask_probabilities", "credit_shares", *LEARNED})
"""Columns that files from version 3 on may lack; null in what is read from them."""
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


def _all_segments(session: Session) -> Iterable[Segment]:
    """The segments of a session, also of a failed one, for which `cut` returns none."""
    return cut(replace(session, ending=Ending.DONE, error=None) if session.ending is Ending.FAILED else session)


def lines_of(session: Session) -> Iterator[tuple[Segment | None, Record]]:
    """Yield each segment with its line; of a session without turns, one line without tokens."""
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
    for name in ("receipts", "abandoned"):
        record[name] = [
            {column.name: getattr(one, column.name) for column in _RECEIPT} for one in getattr(session, name)
        ]
    for name in ("reads", "writes"):
        record[name] = [asdict(entry) for entry in getattr(session, name)]
    return record


def counterfactuals_of(session: Session) -> Record:
    """The column of a session's counterfactuals, which training stores with its last segment."""
    return {"counterfactuals": [asdict(one) for one in session.hindsight.counterfactuals]}


def _segment_record(segment: Segment) -> Record:
    record: Record = {name: getattr(segment, name) for name in _SEGMENT}
    if np.isnan(segment.ask_probabilities).all():
        record["ask_probabilities"] = None
    return record


def learned_of(row: TrainingRow) -> Record:
    """The columns of what training and the learner add to a segment, without advantages."""
    scores = {name: getattr(row.scores, name).astype(np.float16) for name in TokenScores.__slots__}
    shares = [asdict(one) for one in row.credit_shares]
    return {"trained": True, "credit": row.credit, "credit_shares": shares, **scores}


def shares_of(record: dict) -> tuple[CreditShare, ...] | None:
    """Of a line's credit, what each reader gives; None if the line has no credit, or is of a version without this."""
    found = record["credit_shares"]
    return None if found is None else tuple(CreditShare(**entry) for entry in found)


def session_of(record: dict) -> Session:
    """The session of a line, without turns."""
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
        graded=record.get("graded"),
        origin=None if record["origin"] is None else Origin(record["origin"]),
        receipts=tuple(map(_receipt, record["receipts"])),
        abandoned=tuple(map(_receipt, record["abandoned"])),
        reads=tuple(MemoryUse(**entry) for entry in record["reads"]),
        writes=tuple(MemoryUse(**entry) for entry in record["writes"]),
        remarks=tuple(record["remarks"]),
    )


def _receipt(entry: dict) -> Receipt:
    """A receipt; those of an earlier version have no words, or neither rule nor outcome."""
    return Receipt(**{**entry, "outcome": Outcome(entry.get("outcome", Outcome.ANSWERED))})


def _counterfactual(entry: dict) -> Counterfactual:
    return Counterfactual(
        writers=tuple(entry["writers"]),
        similarity=entry["similarity"],
        prefix_ids=np.array(entry["prefix_ids"], np.int32),
    )


def segment_of(record: dict) -> Segment | None:
    """The segment of a line; None if it holds no tokens."""
    if record["token_ids"] is None:
        return None
    if record["ask_probabilities"] is None:
        record["ask_probabilities"] = [None] * len(record["token_ids"])
    arrays = {name: np.array(record[name], dtype) for name, dtype in _DTYPES.items()}  # a null becomes NaN
    return Segment(
        stream=record["stream"], position=record["position"], index=record["index"], last=record["last"], **arrays
    )


def scores_of(record: dict) -> TokenScores | None:
    """The learner's scores of a line; None if it holds none."""
    if record["own_values"] is None:
        return None
    return TokenScores(**{name: np.array(record[name], np.float32) for name in TokenScores.__slots__})
