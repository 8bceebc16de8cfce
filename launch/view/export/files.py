"""Writes the sessions of a run for other programs.

parquet    sessions.parquet: one flat row per session, of all sources
jsonl      SOURCE.jsonl: one session per line, with the text of its parts, receipts, reads and readers
inspect    SOURCE.json: a log that Inspect's viewer opens (inspect_log.py)
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agile_ray.record.whole import whole_file
from launch.view.answers import of_detail
from launch.view.export import inspect_log
from launch.view.export.every import every
from launch.view.runs import Opened, Runs

Writer = Callable[[Runs, Sequence[Opened], Path], Iterator[Path]]
"""Writes sources into a folder, and names each file when it is whole."""


def write_parquet(_: Runs, sources: Sequence[Opened], folder: Path) -> Iterator[Path]:
    """Write one file of all sources; columns `run` and `source`, then those of the table that the viewer shows."""
    tables = [
        opened.table.drop_columns(["text"])
        .add_column(0, "run", pa.array([opened.run] * opened.table.num_rows, pa.string()))
        .add_column(1, "source", pa.array([opened.source] * opened.table.num_rows, pa.string()))
        for opened in sources
    ]
    path = folder / "sessions.parquet"
    with whole_file(path) as aside:
        pq.write_table(pa.concat_tables(tables), aside, compression="zstd")
    yield path


def write_jsonl(runs: Runs, sources: Sequence[Opened], folder: Path) -> Iterator[Path]:
    """Write a file per source, a line per session, in the form in which the viewer answers."""
    for opened in sources:
        path = folder / f"{opened.source}.jsonl"
        with whole_file(path) as aside, aside.open("w", encoding="utf-8") as file:
            for found in every(runs, opened):
                file.write(json.dumps(of_detail(found), ensure_ascii=False, allow_nan=False) + "\n")
        yield path


def write_inspect(runs: Runs, sources: Sequence[Opened], folder: Path) -> Iterator[Path]:
    """Write a log per source."""
    for opened in sources:
        path = folder / f"{opened.source}.json"
        log = inspect_log.log(opened, list(every(runs, opened)))
        with whole_file(path) as aside:
            aside.write_text(json.dumps(log, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        yield path


WRITERS: Mapping[str, Writer] = {"parquet": write_parquet, "jsonl": write_jsonl, "inspect": write_inspect}
"""By the value of `--to`."""
