"""Receipts of asks whose sessions are not stored yet, in journals: so no ask is paid twice, whatever dies.

asked-00012-0.3.5d0c81aa.jsonl: the asks for iteration 12 by the fourth process of rollout actor 0 since the run's start
5d0c81aa. Two lines per purchase:

    {"asks": "train/0#3#0"}
    {"key": "train/0#3#0", "price": 300, "source": "gold", "latency_s": 0.1, "advice": "...", "answer": "..."}

The first is written before the expert is asked, the second before the policy reads the advice. A session that is played
again, by a replaced actor or a resumed run, gets its answers from these receipts. An ask without a receipt may have
been paid for: it is asked again under the same key, and counted as unsure.

Once an iteration is stored, its journals are deleted: every receipt in them is a receipt of its sessions, or of their
abandoned attempts. If a resumed run discards a stored iteration, its receipts become a journal again
(asked-00012-discarded.jsonl). Journals that are left when a run ends hold purchases that no session uses.

abandoned.jsonl, one line per file that a run of an earlier version discarded, whose asks were paid again:

    {"iteration": 12, "attempt": "9f2c41d07ab3e865", "receipts": [{"key": "train/0#3#0", "price": 300, ...}]}
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import read_json_lines
from agile_ray.record.whole import write_whole
from agile_ray.types import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """An ask that is about to be made."""

    asks: str  # its key


_LINE = TypeAdapter(_Ask | Receipt)
_RECEIPT = TypeAdapter(Receipt)


class Journals:
    """The purchases of one rollout actor's process, a file for each iteration."""

    def __init__(self, run: RunFolder, writer: str) -> None:
        """Write into a run's folder; `writer` names the process, and no other process has the same name."""
        run.path.mkdir(parents=True, exist_ok=True)
        self._run = run
        self._writer = writer

    def ask(self, iteration: int, key: str) -> None:
        """Write down an ask before it is made."""
        self._add(iteration, json.dumps({"asks": key}).encode())

    def buy(self, iteration: int, receipt: Receipt) -> None:
        """Write down a purchase before its advice is read; the line survives the end of this process."""
        self._add(iteration, _RECEIPT.dump_json(receipt))

    def _add(self, iteration: int, line: bytes) -> None:
        with self._run.journal(iteration, self._writer).open("ab", buffering=0) as file:
            file.write(line + b"\n")  # one write, so a line is whole or absent


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """What journals hold."""

    receipts: tuple[Receipt, ...] = ()  # in the order of purchase within a journal
    unsure: tuple[str, ...] = ()  # keys of asks without a receipt


def read_journals(paths: Iterable[Path]) -> Bought:
    """What journals hold together, each purchase once; a last line that was cut off is left out.

    Raises:
        ConfigError: a file was not written by this version.
    """
    asked: dict[str, None] = {}
    found: dict[str, Receipt] = {}
    for path in paths:
        for line in read_json_lines(path, _LINE.validate_json, expected="an ask or a receipt"):
            if isinstance(line, _Ask):
                asked[line.asks] = None
            else:
                found.setdefault(line.key, line)
    return Bought(receipts=tuple(found.values()), unsure=tuple(key for key in asked if key not in found))


def clear_journals(run: RunFolder, iteration: int) -> None:
    """Delete the journals of an iteration and of earlier ones, because their sessions are stored."""
    for path, number in run.journals().items():
        if number <= iteration:
            path.unlink()


def keep_discarded(run: RunFolder, iteration: int, receipts: Sequence[Receipt]) -> None:
    """Write the receipts of a stored iteration that is about to be deleted into a journal."""
    if receipts:
        lines = (_RECEIPT.dump_json(receipt) + b"\n" for receipt in receipts)
        write_whole(run.journal(iteration, "discarded"), b"".join(lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An iteration that a run of an earlier version discarded."""

    iteration: int
    attempt: str  # content hash of the deleted file; the same ask in two attempts is two purchases
    receipts: tuple[Receipt, ...]


_ATTEMPT = TypeAdapter(Attempt)


def read_abandoned(run: RunFolder) -> list[Attempt]:
    """Every abandoned attempt in the order of booking; [] if there is none.

    Raises:
        ConfigError: abandoned.jsonl was not written by an earlier version.
    """
    return read_json_lines(run.abandoned, _ATTEMPT.validate_json, expected="an abandoned attempt")
