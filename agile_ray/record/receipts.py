"""Receipts of asks whose sessions are not stored: those of the running collection, and those of discarded work.

asked-0.jsonl, the journal of rollout actor 0, one line per purchase:

    {"key": "train/0#3#0", "price": 300, "source": "gold", "latency_s": 0.1, "advice": "...", "answer": "..."}

Sessions are stored when their whole collection is played. Until then an actor keeps their receipts in memory and here.
Once the collection is stored, the journals are deleted. A journal that a resumed run finds belongs to a collection that
was cut short: its receipts are booked as abandoned.

abandoned.jsonl, one line per segment file or journal that a resumed run deleted:

    {"iteration": 12, "attempt": "9f2c41d07ab3e865", "receipts": [{"key": "train/0#3#0", "price": 300, ...}]}

The line is written before the file is deleted. If the process is killed between the two, the next start finds the
attempt booked and does not book it again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import read_json_lines
from agile_ray.record.whole import write_whole
from agile_ray.types import Receipt

_RECEIPT = TypeAdapter(Receipt)


class Journal:
    """The purchases of one rollout actor in the running collection."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def add(self, receipt: Receipt) -> None:
        """Append a receipt, which then survives the end of this process."""
        with self._path.open("ab", buffering=0) as file:
            file.write(_RECEIPT.dump_json(receipt) + b"\n")  # one write, so a line is whole or absent


def read_journal(path: Path) -> list[Receipt]:
    """The receipts of a journal in the order of purchase; a last line that was cut off is left out.

    Raises:
        ConfigError: the file was not written by this version.
    """
    return read_json_lines(path, _RECEIPT.validate_json, expected="a receipt")


def clear_journals(run: RunFolder) -> None:
    """Delete every journal, because the sessions of its receipts are stored."""
    for path in run.journals():
        path.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A discarded iteration. The same iteration may be attempted, and paid for, several times."""

    iteration: int
    attempt: str  # content hash of the deleted file; the same ask in two attempts is two purchases
    receipts: tuple[Receipt, ...]


_ATTEMPT = TypeAdapter(Attempt)


def abandon(run: RunFolder, file: Path, *, iteration: int, receipts: Sequence[Receipt]) -> None:
    """Book the receipts of a file that is about to be deleted; a file that is already booked is not booked again.

    Raises:
        ConfigError: abandoned.jsonl was not written by this version.
    """
    attempt = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    booked = read_abandoned(run)
    if not receipts or any((one.iteration, one.attempt) == (iteration, attempt) for one in booked):
        return
    booked.append(Attempt(iteration=iteration, attempt=attempt, receipts=tuple(receipts)))
    write_whole(run.abandoned, b"".join(_ATTEMPT.dump_json(one) + b"\n" for one in booked))


def read_abandoned(run: RunFolder) -> list[Attempt]:
    """Every abandoned attempt in the order of booking; [] if there is none.

    Raises:
        ConfigError: abandoned.jsonl was not written by this version.
    """
    return read_json_lines(run.abandoned, _ATTEMPT.validate_json, expected="an abandoned attempt")
