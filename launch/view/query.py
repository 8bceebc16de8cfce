"""Which sessions to list, in which order: what the address of a page says, and the rows that it means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from agile_ray.errors import ConfigError
from agile_ray.record.parquet.functions import compute as pc
from agile_ray.types import Int64, Mask
from launch.view.rows import FAILED, HIDDEN, RIGHT

PAGE = 200
"""Rows of one answer, unless it is told otherwise."""
MAX_PAGE = 1000
CLAIMS: Mapping[str, Callable[[pa.Table], pa.ChunkedArray]] = {
    "wrong": lambda table: pc.not_equal(table["result"], RIGHT),
    "failed": lambda table: pc.equal(table["result"], FAILED),
    "asked": lambda table: pc.greater(table["asks"], 0),
    "known": lambda table: table["known"],
    "served": lambda table: pc.greater(table["served"], 0),
    "parted": lambda table: table["parted"],
}
"""What can be claimed of a row, by the name in the address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Every condition that is set must hold. A claim is True, False, or None: either."""

    wrong: bool | None = None  # no right answer; both values leave out failed sessions
    failed: bool | None = None
    asked: bool | None = None
    known: bool | None = None  # memory held the answer
    served: bool | None = None  # a later session read what it wrote, and answered right without asking
    parted: bool | None = None  # the other policy's session has another result, or differs in whether it asked
    kind: str | None = None
    stream: str | None = None  # its id, or the end of it
    iteration: int | None = None
    text: str = ""  # to find, in any case
    sort: str = ""  # a column; "": as played
    descending: bool = False
    offset: int = 0
    limit: int = PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of some sessions. Shares and the mean reward leave out failed ones, and are None if no other is left."""

    sessions: int
    failed: int
    right: float | None
    asked: float | None
    reward: float | None


def parse(params: Mapping[str, str]) -> Query:
    """The query that an address names; other parameters are left to others, and empty ones count as not given.

    Raises:
        ConfigError: a value is not of its parameter's form.
    """
    found = Query(
        wrong=_claim(params, "wrong"),
        failed=_claim(params, "failed"),
        asked=_claim(params, "asked"),
        known=_claim(params, "known"),
        served=_claim(params, "served"),
        parted=_claim(params, "parted"),
        kind=params.get("kind") or None,
        stream=params.get("stream") or None,
        iteration=_number(params, "iteration"),
        text=params.get("text", ""),
        sort=params.get("sort", ""),
        descending=_claim(params, "descending") or False,
        offset=_number(params, "offset") or 0,
        limit=PAGE if (limit := _number(params, "limit")) is None else limit,
    )
    if not 1 <= found.limit <= MAX_PAGE:
        raise ConfigError(f"limit: from 1 to {MAX_PAGE}, found {found.limit}")
    return found


def find(table: pa.Table, query: Query) -> Int64:
    """Row numbers of the sessions that a query means, in its order.

    Raises:
        ConfigError: it sorts or filters by a column that the table lacks.
    """
    if query.sort and (query.sort not in table.column_names or query.sort in HIDDEN):
        there = ", ".join(name for name in table.column_names if name not in HIDDEN)
        raise ConfigError(f"sort: one of {there}; found {query.sort}")
    if query.parted is not None and "parted" not in table.column_names:
        raise ConfigError("parted: needs another policy to compare with; give other_run and other_source")
    kept = np.flatnonzero(_mask(table, query))
    if not query.sort:
        return kept[::-1] if query.descending else kept
    order = "descending" if query.descending else "ascending"
    chosen = table.select([query.sort]).take(pa.array(kept))
    return kept[pc.sort_indices(chosen, sort_keys=[(query.sort, order)]).to_numpy()]


def _mask(table: pa.Table, query: Query) -> Mask:
    mask = np.ones(table.num_rows, np.bool_)
    for name, claim in CLAIMS.items():
        wanted = getattr(query, name)
        if wanted is not None:
            mask &= pc.fill_null(pc.equal(claim(table), wanted), False).to_numpy()
    if query.wrong is not None:
        mask &= pc.not_equal(table["result"], FAILED).to_numpy()
    if query.stream is not None:
        own, below = pc.equal(table["stream"], query.stream), pc.ends_with(table["stream"], f"/{query.stream}")
        mask &= pc.or_(own, below).to_numpy()
    for name in ("kind", "iteration"):
        value = getattr(query, name)
        if value is not None:
            mask &= pc.fill_null(pc.equal(table[name], value), False).to_numpy()
    if query.text:
        mask &= pc.match_substring(table["text"], query.text.lower()).to_numpy()
    return mask


def summarize(table: pa.Table, rows: Int64) -> Summary:
    """Count the rows, and what came of them."""
    chosen = table.select(["result", "asks", "reward"]).take(pa.array(rows))
    kept = chosen.filter(pc.not_equal(chosen["result"], FAILED))
    some = kept.num_rows > 0
    return Summary(
        sessions=len(rows),
        failed=len(rows) - kept.num_rows,
        right=float(np.mean(pc.equal(kept["result"], RIGHT).to_numpy())) if some else None,
        asked=float(np.mean(kept["asks"].to_numpy() > 0)) if some else None,
        reward=float(np.mean(kept["reward"].to_numpy())) if some else None,
    )


def by_kind(table: pa.Table, rows: Int64) -> dict[str, Summary]:
    """The same for each kind of question among the rows, in alphabetical order."""
    kinds = np.array(table["kind"])[rows]
    return {kind: summarize(table, rows[kinds == kind]) for kind in sorted(set(kinds.tolist()))}


def _claim(params: Mapping[str, str], name: str) -> bool | None:
    text = params.get(name)
    if text and text not in ("0", "1"):
        raise ConfigError(f"{name}: 1 or 0, found {text}")
    return text == "1" if text else None


def _number(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name)
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError(f"{name}: a whole number of at most nine digits, found {text}")
    return int(text) if text else None
