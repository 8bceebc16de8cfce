"""Files as earlier versions stored them."""

from pathlib import Path

import pyarrow.parquet as pq

from agile_ray.record.parquet.columns import LEARNED
from agile_ray.record.parquet.tables import VERSION_KEY

SEGMENT = ("index", "last", "token_ids", "action_mask", "turn_ids", "behavior_logprobs", "versions", "rewards")


def age(path: Path, *, version: str | None = "3") -> None:
    """Turn a segment file, or an evaluation in the folder `evaluation`, into what schema 3 stored.

    Args:
        path: of the file.
        version: that its metadata names; None: it names none.
    """
    table = pq.read_table(path)
    evaluation = path.parent.name == "evaluation"
    added = {
        "same_item",
        "guess_probability",
        "ask_probabilities",
        "credit_shares",
        *LEARNED,
        *(SEGMENT if evaluation else ()),
    }
    if evaluation:
        table = table.filter(table["last"])
    table = table.drop_columns([name for name in table.column_names if name in added])
    pq.write_table(table.replace_schema_metadata(None if version is None else {VERSION_KEY: version}), path)
