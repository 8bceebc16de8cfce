"""An evaluation of many sessions, made of one stream in no time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agile_ray.record import store
from agile_ray.types import Session


def write_copies(path: Path, stream: Sequence[Session], *, copies: int) -> None:
    """Store a stream many times, as test/0, test/1, ..."""
    store.write_sessions(path, [replace(session, position=position) for position, session in enumerate(stream)])
    one = pq.read_table(path)
    at = one.schema.get_field_index("stream")
    named = [one.set_column(at, "stream", pa.array([f"test/{number}"] * len(stream))) for number in range(copies)]
    pq.write_table(pa.concat_tables(named).replace_schema_metadata(one.schema.metadata), path)
