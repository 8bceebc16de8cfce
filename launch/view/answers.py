"""What the viewer answers, as values that JSON has: no NaN, no objects. An export writes sessions in the same form."""

from dataclasses import asdict

import numpy as np

from agile_ray.errors import ConfigError
from agile_ray.record.parquet.functions import compute as pc
from agile_ray.types import Int64, Session
from launch.report.look.parts import Part
from launch.view import compare, query
from launch.view.detail import Detail, ShownPart, detail
from launch.view.query import Query
from launch.view.rows import Json
from launch.view.runs import Opened, Runs
from launch.view.tokens import known

GROWTH = ("key", "iteration", "position", "memory", "asks", "reads", "writes", "result", "reward", "known")
"""What `growth` says of each session."""


def listing(runs: Runs) -> Json:
    """Every run, with what it stores."""
    return [{"name": name, "sources": runs.sources(name)} for name in runs.names]


def sessions(runs: Runs, opened: Opened, other: Opened | None, wanted: Query) -> Json:
    """A page of sessions, and what all that the query finds have in common.

    Raises:
        ConfigError: the query names a column that the table lacks.
    """
    table = runs.beside(opened, other)
    rows = query.find(table, wanted)
    return {
        "total": table.num_rows,
        "summary": asdict(query.summarize(table, rows)),
        "by_kind": {kind: asdict(found) for kind, found in query.by_kind(table, rows).items()},
        "kinds": sorted(set(table["kind"].to_pylist())),
        "offset": wanted.offset,
        "rows": opened.rows(rows[wanted.offset : wanted.offset + wanted.limit], of=table),
        "lacks": _source_lacks(opened),
    }


def session(runs: Runs, opened: Opened, key: str, other: Opened | None, wanted: Query) -> Json:
    """One session, its neighbours in the list, and the other policy's session on the same question.

    Raises:
        ConfigError: there is no such session, or its file is damaged.
    """
    row = opened.row(key)
    table = runs.beside(opened, other)
    found = detail(runs, opened, row)
    beside, missing = (None, None) if other is None else _same_question(runs, opened, row, other)
    parted = None if beside is None else compare.parted_at(_plain(found), _plain(beside))
    return {
        "session": of_detail(found),
        "neighbours": _neighbours(opened, query.find(table, wanted), row),
        "other": None if beside is None else of_detail(beside),
        "other_lacks": missing,
        "parted": None if parted is None else asdict(parted),
    }


def growth(opened: Opened, stream: str) -> Json:
    """Memory along a stream, session by session in the order in which they are played.

    Args:
        opened: the source.
        stream: id of the stream, or the end of it.

    Raises:
        ConfigError: no session is of this stream.
    """
    rows = query.find(opened.table, Query(stream=stream))
    streams = np.array(opened.table["stream"])[rows]
    names = set(streams.tolist())
    if len(names) != 1 and stream not in names:
        raise ConfigError(
            f"stream: names one of {opened.run}, {opened.source}; found {stream}, which names {len(names)}"
        )
    rows = rows[streams == stream] if stream in names else rows
    order = np.lexsort([opened.table[name].fill_null(0).to_numpy()[rows] for name in ("position", "iteration")])
    return {
        "stream": min(names & {stream} or names),
        "sessions": [{name: row[name] for name in GROWTH} for row in opened.rows(rows[order])],
    }


def of_detail(found: Detail) -> dict[str, Json]:
    """A session with its parts, receipts, and what it read and who read from it."""
    return {
        "row": found.row,
        "facts": _facts(found.session),
        "parts": [_part(one) for one in found.parts],
        "receipts": [asdict(receipt) for receipt in found.receipts],
        "reads": [asdict(read) for read in found.reads],
        "writes": [asdict(use) for use in found.session.writes],
        "readers": [asdict(reader) for reader in found.readers],
        "unshared": found.unshared,
        "memory_use": found.memory_use,
        "lacks": list(found.lacks),
    }


def _plain(found: Detail) -> list[Part]:
    return [one.part for one in found.parts]


def _facts(session: Session) -> Json:
    """What a row leaves out."""
    hindsight = session.hindsight
    return {
        "stream_length": session.stream_length,
        "ending": session.ending.value,
        "origin": session.origin and session.origin.value,
        "remarks": list(session.remarks),
        "memory_sizes": hindsight.memory_sizes,
        "stored_similar": hindsight.stored_similar,
        "later_similar": hindsight.later_similar,
        "same_item": list(hindsight.same_item),
        "guess_probability": hindsight.guess_probability,
        "abandoned": [asdict(receipt) for receipt in session.abandoned],
    }


def _part(one: ShownPart) -> Json:
    part = {name: known(v) if isinstance(v, float) else v for name, v in asdict(one.part).items() if name != "tokens"}
    tokens = [{name: v for name, v in asdict(token).items() if v is not None} for token in one.tokens]
    return {**part, "tokens": tokens} if tokens else part


def _neighbours(opened: Opened, rows: Int64, row: int) -> Json:
    """The session's place among those that the query finds, from 0, and the keys before and after it."""
    at = (rows == row).nonzero()[0]
    if not len(at):
        return {"index": None, "before": None, "after": None, "found": len(rows)}
    index = int(at[0])
    before, after = rows[max(index - 1, 0) : index], rows[index + 1 : index + 2]
    keys = [[row["key"] for row in opened.rows(found)] or [None] for found in (before, after)]
    return {"index": index, "before": keys[0][0], "after": keys[1][0], "found": len(rows)}


def _same_question(runs: Runs, opened: Opened, row: int, other: Opened) -> tuple[Detail | None, str | None]:
    """The other policy's session on the same question, or why there is none."""
    [own] = opened.table.slice(row, 1).select(["stream", "position", "question_id"]).to_pylist()
    is_there = pc.and_(
        pc.equal(other.table["stream"], own["stream"]), pc.equal(other.table["position"], own["position"])
    )
    same = np.flatnonzero(is_there.to_numpy()).tolist()
    where = f"{other.run}, {other.source}"
    if not same:
        return None, f"{where} stores no session {own['position']} of {own['stream']}"
    asked = other.table["question_id"][same[-1]].as_py()
    if asked != own["question_id"]:
        return None, f"{where} has another question there: {asked}, not {own['question_id']}"
    return detail(runs, other, same[-1]), None


def _source_lacks(opened: Opened) -> list[str]:
    """What no session of a source has, and why."""
    table, found = opened.table, []
    if table["ask_probability"].null_count == table.num_rows:
        found.append("no probability of asking: scripts have none, and versions before schema 4 do not store it")
    if not opened.is_training:
        found.append("no credit: an evaluation computes none")
    elif table["credit"].null_count == table.num_rows:
        found.append("no credit: no session was trained on")
    return found
