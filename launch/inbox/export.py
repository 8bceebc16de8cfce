"""Writes the asks of an inbox with their answers as a data set. The inbox may be in use."""

from pathlib import Path

from agile_ray.errors import ConfigError
from agile_ray.inbox.asks import RECORD, Record
from agile_ray.record.whole import whole_file
from launch.inbox.queue import FILE, Queue


def export(folder: Path, path: Path) -> int:
    """Write .jsonl, which `env.expert=recorded:FILE` reads, or .parquet, with one flat row per ask; return the number.

    Raises:
        ConfigError: the folder holds no inbox, or the file has another ending.
    """
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder}: must be the folder of an inbox, found no {FILE} in it")
    queue = Queue(folder / FILE)
    try:
        records = list(queue.records())
    finally:
        queue.close()
    if path.suffix == ".jsonl":
        with whole_file(path) as aside:
            aside.write_bytes(b"".join(RECORD.dump_json(one) + b"\n" for one in records))
    elif path.suffix == ".parquet":
        _write_parquet(records, path)
    else:
        raise ConfigError(f"--export: a file that ends in .jsonl or .parquet, found {path}")
    return len(records)


def _write_parquet(records: list[Record], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        **{name: pa.array([getattr(one.ask, name) for one in records], pa.string()) for name in TEXTS},
        "ask_probability": pa.array([one.ask.ask_probability for one in records], pa.float64()),
        "state": pa.array([str(one.told.state) for one in records], pa.string()),
        "said": pa.array([one.told.text for one in records], pa.string()),
        "answer": pa.array([one.told.answer for one in records], pa.string()),
        "by": pa.array([one.by for one in records], pa.string()),
        "asked_s": pa.array([one.asked_s for one in records], pa.float64()),
        "closed_s": pa.array([one.closed_s for one in records], pa.float64()),
    }
    with whole_file(path) as aside:
        pq.write_table(pa.table(columns), aside, compression="zstd")


TEXTS = ("key", "stream", "question_id", "kind", "topic", "text", "context", "words")
"""Columns of an ask."""
