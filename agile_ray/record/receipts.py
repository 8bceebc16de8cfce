"""`asked-0.jsonl`: what rollout actor 0 has paid for in the collection that runs, a line once an expert has answered.

    {"key": "train/0#3#0", "price": 300, "source": "gold", "latency_s": 0.1, "advice": "...", "answer": "..."}

A session is stored when its whole collection is; until then its receipts are in the memory of an actor, and here. Once
the collection is stored, the file is deleted. One that a resumed run finds is of a collection that was cut short: what
it paid for is booked as abandoned.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agile_ray.errors import ConfigError
from agile_ray.types import Receipt

_RECEIPT = TypeAdapter(Receipt)


class Journal:
    """Written by one rollout actor."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def add(self, receipt: Receipt) -> None:
        """Append a receipt; it outlives this process from here on."""
        with self._path.open("ab", buffering=0) as file:
            file.write(_RECEIPT.dump_json(receipt) + b"\n")  # one write: whole, or not there


def place(run_folder: Path, actor: int) -> Path:
    """Where an actor's journal lies."""
    return run_folder / f"asked-{actor}.jsonl"


def journals(run_folder: Path) -> Iterator[Path]:
    """Yield every actor's journal that is there, in the order of their names."""
    yield from sorted(run_folder.glob("asked-*.jsonl"))


def read(path: Path) -> list[Receipt]:
    """The receipts of a journal, the first one first; a last line that was not finished is none.

    Raises:
        ConfigError: the file was not written by this version.
    """
    *whole, _ = path.read_bytes().split(b"\n")
    try:
        return [_RECEIPT.validate_json(line) for line in whole]
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: not a list of receipts: {problem['loc']}: {problem['msg']}") from error


def clear(run_folder: Path) -> None:
    """Delete every journal: what they hold is stored."""
    for path in journals(run_folder):
        path.unlink()
