"""Sessions as rows of one flat table, which Arrow filters and sorts: 100,000 of them in tens of milliseconds.

A row has what can be said of a session without its tokens. `read` takes it from a segment file or an evaluation, by
column, without making objects. Columns that depend on other sessions are added by links.py and compare.py.

Dimensions: L = lines of a file, one per segment; S = sessions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agile_ray.evaluation.score import Cause
from agile_ray.record.parquet.columns import ADDED, PLAYED, STORED_SEGMENT
from agile_ray.record.parquet.functions import compute as pc
from agile_ray.record.parquet.tables import read_table
from agile_ray.types import Ending, Int64, Mask, Origin
from launch.report.look.listing import CAUSES

Json: TypeAlias = "str | int | float | bool | None | Sequence[Json] | Mapping[str, Json]"
"""A value that JSON has."""
Row = dict[str, Json]
"""A row of the table, by column."""

RIGHT, FAILED = "right", "failed"
"""Values of `result`, beside those of `CAUSES`."""

COLUMNS = {
    "iteration": pa.int32(),  # null in an evaluation
    "stream": pa.string(),
    "position": pa.int32(),
    "question_id": pa.string(),
    "kind": pa.string(),
    "topic": pa.string(),
    "result": pa.string(),
    "known": pa.bool_(),  # memory held the answer
    "asks": pa.int32(),
    "paid": pa.float64(),  # this, price and reward: in units of the reward for a right answer
    "price": pa.float64(),
    "reward": pa.float64(),
    "credit": pa.float64(),  # null if the session was not trained on
    "ask_probability": pa.float64(),  # highest of its turns; null if none is stored
    "memory": pa.int32(),  # earlier sessions whose entries memory held
    "reads": pa.int32(),  # entries that it read
    "writes": pa.int32(),  # entries that it wrote
    "answer": pa.string(),
    "advice": pa.string(),
    "error": pa.string(),
    "writers": pa.list_(pa.int32()),  # positions of the sessions whose entries it read, one per entry
    "text": pa.string(),  # what a search looks at, in lower case
}
"""Of what `read` returns."""
HIDDEN = ("writers", "text")
"""Columns that no answer shows."""

_ASKED_OF_FILES = (
    *("stream", "position", "question_id", "kind", "topic", "price", "ending", "error", "answer", "origin", "correct"),
    *("graded", "receipts", "reads", "writes", "remarks", "known", "memory_sizes"),
    *("last", "ask_probabilities", "trained", "credit"),
)
_OF_FILES = {name: STORED_SEGMENT[name] for name in _ASKED_OF_FILES}
_MAY_LACK = ADDED | (_OF_FILES.keys() - PLAYED.keys())
_SEARCHED = ("stream", "question_id", "kind", "topic", "answer", "advice", "error")


def read(path: Path, *, iteration: int | None) -> pa.Table:
    """The sessions of one file, with the columns `COLUMNS`.

    Args:
        path: a segment file, or an evaluation.
        iteration: that the segment file belongs to; None: it is an evaluation.

    Raises:
        ConfigError: the file is missing or damaged, or its schema is a newer version's.
    """
    lines = read_table(path, _OF_FILES, may_lack=frozenset(_MAY_LACK))
    last_L = pc.fill_null(lines["last"], True).to_numpy()
    session_L = np.cumsum(last_L) - last_L  # the segments of a session are adjacent
    played = lines.filter(pa.array(last_L))
    count = played.num_rows
    asks_S = _lengths(played, "receipts")
    paid_S = _sums(played, "receipts", "price", count)
    earned_S = pc.coalesce(played["graded"], pc.if_else(played["correct"], 1000, 0)).to_numpy()
    found = {name: played[name].combine_chunks() for name in COLUMNS if name in played.column_names}
    found |= {
        "iteration": pa.array([iteration] * count, pa.int32()),
        "result": _results(played, asks_S=asks_S),
        "asks": pa.array(asks_S, pa.int32()),
        "paid": pa.array(paid_S / 1000),
        "price": pa.array(played["price"].to_numpy() / 1000),
        "reward": pa.array((earned_S - paid_S) / 1000),
        "credit": _credits(lines, session_L, count),
        "ask_probability": _highest(lines, session_L, count),
        "memory": pa.array(_memory(played, count), pa.int32()),
        "reads": pa.array(_lengths(played, "reads"), pa.int32()),
        "writes": pa.array(_lengths(played, "writes"), pa.int32()),
        "advice": pc.binary_join(_inner(played, "receipts", "advice"), "\n"),
        "writers": _inner(played, "reads", "writer"),
    }
    texts = [pc.fill_null(found[name], "") for name in _SEARCHED]
    remarks = pc.binary_join(played["remarks"].combine_chunks(), " ")
    found["text"] = pc.utf8_lower(pc.binary_join_element_wise(*texts, remarks, "\n"))
    return pa.table({name: found[name] for name in COLUMNS}, schema=pa.schema(COLUMNS))


def _results(played: pa.Table, *, asks_S: Int64) -> pa.Array:
    """The same as `agile_ray.evaluation.score.cause`, by column."""
    ending_S = played["ending"]
    silent_S = pc.is_null(played["answer"]).to_numpy()
    cases: list[tuple[Mask, str]] = [
        (pc.equal(ending_S, Ending.FAILED.value).to_numpy(), FAILED),
        (played["correct"].to_numpy(), RIGHT),
        (silent_S & pc.equal(ending_S, Ending.CUT.value).to_numpy(), CAUSES[Cause.CUT]),
        (silent_S, CAUSES[Cause.NO_ANSWER]),
        (asks_S > 0, CAUSES[Cause.ADVICE_WRONG]),
        (_has(played, "remarks", "bad_query"), CAUSES[Cause.BAD_QUERY]),
        (pc.fill_null(pc.equal(played["origin"], Origin.ROWS.value), False).to_numpy(), CAUSES[Cause.ROWS_WRONG]),
    ]
    words = [word for _, word in cases]
    chosen_S = np.select([mask for mask, _ in cases], list(range(len(cases))), default=len(cases))
    return pa.array([*words, CAUSES[Cause.PREDICTED_WRONG]]).take(pa.array(chosen_S))


def _lengths(played: pa.Table, name: str) -> Int64:
    """Number of entries of a list column, int64 [S]."""
    return pc.list_value_length(played[name]).to_numpy().astype(np.int64)


def _inner(played: pa.Table, name: str, field: str) -> pa.Array:
    """A list column of structs as a list column of one of their fields."""
    lists = played[name].combine_chunks()
    return pa.ListArray.from_arrays(lists.offsets, pc.struct_field(lists.values, field))


def _owners(offsets: NDArray[np.int32]) -> Int64:
    """Row that each value of a list column belongs to."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _sums(played: pa.Table, name: str, field: str, count: int) -> Int64:
    lists = _inner(played, name, field)
    return np.bincount(_owners(lists.offsets.to_numpy()), lists.flatten().to_numpy(), minlength=count).astype(np.int64)


def _has(played: pa.Table, name: str, word: str) -> Mask:
    lists = played[name].combine_chunks()
    found = pc.equal(lists.flatten(), word).to_numpy(zero_copy_only=False)
    return np.bincount(_owners(lists.offsets.to_numpy()), found, minlength=played.num_rows) > 0


def _memory(played: pa.Table, count: int) -> Int64:
    sizes = played["memory_sizes"].combine_chunks()
    offsets = sizes.offsets.to_numpy()
    values = sizes.items.to_numpy()[offsets[0] : offsets[-1]]
    return np.bincount(_owners(offsets), values, minlength=count).astype(np.int64)


def _credits(lines: pa.Table, session_L: Int64, count: int) -> pa.Array:
    """Credit of each session, the sum over its segments; null where no segment was trained on."""
    given_L = pc.is_valid(lines["credit"]).to_numpy()
    amounts_L = pc.fill_null(lines["credit"], 0.0).to_numpy()
    given_S = np.bincount(session_L, given_L, minlength=count) > 0
    return pa.array(np.bincount(session_L, amounts_L, minlength=count), mask=~given_S)


def _highest(lines: pa.Table, session_L: Int64, count: int) -> pa.Array:
    """Highest probability of asking of each session; null where none is stored."""
    stored = lines["ask_probabilities"].combine_chunks()
    parents = session_L[pc.list_parent_indices(stored).to_numpy()]
    found = pa.table({"session": pa.array(parents), "value": stored.flatten()}).drop_null()
    best = found.group_by("session").aggregate([("value", "max")])
    highest_S = np.full(count, np.nan)
    highest_S[best["session"].to_numpy()] = best["value_max"].to_numpy()
    return pa.array(highest_S, from_pandas=True)
