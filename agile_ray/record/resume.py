"""Discards what was stored after the checkpoint that a run resumes from."""

from pathlib import Path

import pyarrow.parquet as pq

from agile_ray.record import abandoned, receipts
from agile_ray.record.folder import stored
from agile_ray.record.store import outcomes
from agile_ray.types import Receipt


def discard_after(folder: Path, iteration: int) -> int:
    """Delete what was stored after an iteration, and what a killed process left unfinished.

    What was paid is booked in `abandoned.jsonl`, beside the folder, before its file is deleted.

    Returns:
        Whole rows deleted.

    Raises:
        ConfigError: a file's schema, or what is booked, is another version's.
    """
    _discard_journals(folder)  # first: what they hold of a stored iteration is known only as long as it is stored
    discarded = 0
    for number, path in stored(folder):
        if number > iteration:
            discarded += pq.read_metadata(path).num_rows
            abandoned.add(folder.parent, path, iteration=number, receipts=_bought(folder, number))
            path.unlink()
    for unfinished in folder.glob(".*.aside"):
        unfinished.unlink()
    return discarded


def _discard_journals(folder: Path) -> None:
    """A killed process leaves them: of a collection that was cut short, or of one that had just been stored."""
    last = max((number for number, _ in stored(folder)), default=0)
    booked = set(_bought(folder, last)) if last else set()
    for path in receipts.journals(folder.parent):
        left = [receipt for receipt in receipts.read(path) if receipt not in booked]
        abandoned.add(folder.parent, path, iteration=last + 1, receipts=left)
        path.unlink()


def _bought(folder: Path, iteration: int) -> list[Receipt]:
    played = outcomes(folder, iteration)
    return [receipt for session in played for receipt in (*session.receipts, *session.abandoned)]
