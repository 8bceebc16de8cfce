"""`abandoned.jsonl`: what was paid for after the checkpoint a run went on from, and has to be played again.

    {"iteration": 12, "attempt": "9f2c41d07ab3e865", "receipts": [{"key": "train/0#3#0", "price": 300, ...}]}

One line per deleted file, of segments or of a collection that was cut short, written before the file is deleted. A
crash between the two leaves both; the next start finds the attempt booked and does not book it again.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agile_ray.errors import ConfigError
from agile_ray.types import Receipt

FILE = "abandoned.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An iteration that was thrown away. The same iteration may be attempted, and paid for, several times."""

    iteration: int
    attempt: str  # content hash of the file: the same ask in two attempts is two purchases
    receipts: tuple[Receipt, ...]


_ATTEMPT = TypeAdapter(Attempt)


def add(run_folder: Path, file: Path, *, iteration: int, receipts: Sequence[Receipt]) -> None:
    """Book the receipts of a file, at once or not at all; again, it does nothing.

    Raises:
        ConfigError: what is booked was not written by this version.
    """
    attempt = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    booked = read(run_folder)
    if not receipts or any((one.iteration, one.attempt) == (iteration, attempt) for one in booked):
        return
    booked.append(Attempt(iteration=iteration, attempt=attempt, receipts=tuple(receipts)))
    aside = run_folder / f".{FILE}.aside"
    aside.write_bytes(b"".join(_ATTEMPT.dump_json(one) + b"\n" for one in booked))
    os.replace(aside, run_folder / FILE)


def read(run_folder: Path) -> list[Attempt]:
    """Every attempt that was booked, the first one first; [] if none was.

    Raises:
        ConfigError: the file was not written by this version.
    """
    path = run_folder / FILE
    if not path.exists():
        return []
    try:
        return [_ATTEMPT.validate_json(text) for text in path.read_bytes().splitlines()]
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: not a list of attempts: {problem['loc']}: {problem['msg']}") from error
