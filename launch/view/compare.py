"""Two policies on the same questions: what the other one's session on a question came to, and where the two part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from launch.report.look.parts import POLICY, Part

COMPARED = {
    "other_result": pa.string(),  # this and the following ones are null where the other policy has no such session
    "other_asks": pa.int32(),
    "other_reward": pa.float64(),
    "other_answer": pa.string(),
    "parted": pa.bool_(),  # another result, or one asked and the other did not
}
"""Columns that `beside` adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """Where two sessions on one question first differ."""

    part: int  # index among the parts
    who: str  # writer of that part in the first session: a policy decided otherwise, or read something else


def beside(table: pa.Table, other: pa.Table) -> pa.Table:
    """The table with the columns `COMPARED`.

    Sessions are on the same question if stream, position and question id are equal. Of several such sessions of the
    other table, the last one counts.
    """
    rows = dict(zip(_questions(other), range(other.num_rows), strict=True))
    found = pa.array([rows.get(question) for question in _questions(table)], pa.int64())
    taken = other.select(["result", "asks", "reward", "answer"]).take(found)
    table = table.append_column("other_result", taken["result"]).append_column("other_asks", taken["asks"])
    table = table.append_column("other_reward", taken["reward"]).append_column("other_answer", taken["answer"])
    results = np.array(table["result"]) != np.array(taken["result"])
    asked = (table["asks"].to_numpy() > 0) != (taken["asks"].fill_null(0).to_numpy() > 0)
    missing = np.array(found.is_null())
    return table.append_column("parted", pa.array(results | asked, mask=missing))


def parted_at(own: Sequence[Part], other: Sequence[Part]) -> Parted | None:
    """The first part in which two sessions differ; None if they are equal, or one of them has no tokens."""
    if not own or not other:
        return None
    for index in range(max(len(own), len(other))):
        if index >= len(own):
            return Parted(part=index, who=POLICY)
        if index >= len(other) or (own[index].who, own[index].text) != (other[index].who, other[index].text):
            return Parted(part=index, who=own[index].who)
    return None


def _questions(table: pa.Table) -> list[tuple[str, int, str]]:
    names = ("stream", "position", "question_id")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
