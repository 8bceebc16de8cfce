"""Which session read whose entries, over a whole source, and what that did for the readers.

An entry names its writer by its position in the stream. A stream may be played again in a later iteration, with an
empty memory, so the writer is the last session at that position before the reader.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from agile_ray.types import NO_WRITER
from launch.view.rows import RIGHT

LINKED = {
    "readers": pa.int32(),  # later sessions that read an entry of this one
    "served": pa.int32(),  # those of them that answered right without asking
}
"""Columns that `with_links` adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Readers and writers, by their row in the table. What memory held before the first session has no writer."""

    writers: Mapping[int, Sequence[int]]  # of each row, the rows whose entries it read
    readers: Mapping[int, Sequence[int]]  # of each row, the later rows that read its entries


def find(table: pa.Table) -> Links:
    """Pair readers with writers; a writer that is not in the table is left out.

    Args:
        table: rows of one source.
    """
    writers: defaultdict[int, list[int]] = defaultdict(list)
    readers: defaultdict[int, list[int]] = defaultdict(list)
    streams, positions = table["stream"].to_pylist(), table["position"].to_pylist()
    iterations = np.array(table["iteration"].fill_null(0))
    read = table["writers"].to_pylist()
    latest: dict[tuple[str, int], int] = {}
    for row in np.lexsort((positions, iterations)).tolist():  # by iteration, then by position
        for writer in sorted(set(read[row]) - {NO_WRITER}):
            source = latest.get((streams[row], writer))
            if source is not None:
                writers[row].append(source)
                readers[source].append(row)
        latest[streams[row], positions[row]] = row
    return Links(writers=writers, readers=readers)


def with_links(table: pa.Table, links: Links) -> pa.Table:
    """The table with the columns `LINKED`."""
    helped = (np.array(table["result"]) == RIGHT) & (table["asks"].to_numpy() == 0)
    count = np.zeros(table.num_rows, np.int32)
    served = np.zeros(table.num_rows, np.int32)
    for row, found in links.readers.items():
        count[row] = len(found)
        served[row] = helped[found].sum()
    return table.append_column("readers", pa.array(count)).append_column("served", pa.array(served))
