"""What a paid endpoint was asked, said and cost, so that an equal question is paid once, and a limit holds.

One SQLite table, in a file or in memory. A row is written before the endpoint is asked, with the most that the answer
may cost, and gets the answer and its true cost afterwards. A row that a dead process left, or whose request failed,
keeps its reserve, since the endpoint may have been paid. So the limit is never exceeded, whatever dies.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agile_ray.errors import ConfigError, ExpertError

POLL_S = 0.05
"""Wait between two looks for an answer that another process asks for, or for a free turn."""
SLACK_S = 5.0
"""How much longer a request may take than its deadline before it counts as lost."""
TABLE = """
CREATE TABLE IF NOT EXISTS asked (
    question TEXT NOT NULL, attempt INTEGER NOT NULL, until REAL NOT NULL, tokens INTEGER NOT NULL, said TEXT,
    PRIMARY KEY (question, attempt))
"""


class CappedError(Exception):
    """The limit leaves no room for the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """An answer of the endpoint."""

    said: str
    tokens: int  # read and written


class Spending:
    """Answers by question, and the tokens that they cost. May be used from several threads and processes."""

    def __init__(self, file: Path | None, *, asks: str, limit: int | None, wait_s: float, at_once: int) -> None:
        """Open or create the table.

        Args:
            file: SQLite file; None: in memory.
            asks: what is asked, such as the endpoint and its model; others' answers are not used.
            limit: of tokens, over all that the file holds; None: none.
            wait_s: deadline of one request; a while after it, a request of another process counts as lost.
            at_once: most requests of this process at the same time. A row is written only when its request may begin:
                one that waited would count as lost, and be paid again.

        Raises:
            ConfigError: the file can't be used.
        """
        try:
            self._rows = _opened(file, wait_s=wait_s)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"env.expert: the cache {file} must be an SQLite file that can be written, found: {error}; name another"
            ) from error
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(at_once)
        self._asks = asks
        self._limit = limit
        self._wait_s = wait_s

    @property
    def tokens(self) -> int:
        """Tokens that were used, or are reserved."""
        with self._lock, closing(self._rows.execute("SELECT coalesce(sum(tokens), 0) FROM asked")) as found:
            return int(found.fetchone()[0])

    def once(self, question: str, *, most: int, pay: Callable[[], Paid]) -> str:
        """What the endpoint says to a question; it is asked only if it has not said it yet.

        Args:
            question: all that the answer depends on.
            most: the tokens that the request may cost.
            pay: asks the endpoint.

        Raises:
            CappedError: the limit leaves no room, and nobody has asked this question.
            ExpertError: there is no answer in time from another thread or process that asks it, or no free turn.
        """
        key = hashlib.sha256(f"{self._asks}\0{question}".encode()).hexdigest()
        end = time.monotonic() + self._wait_s
        while (found := self._claimed(key, most=most)) is None:
            if time.monotonic() > end:
                raise ExpertError(f"expert chat: no answer, or no turn to ask, within {self._wait_s:g} s", late=True)
            time.sleep(POLL_S)
        if isinstance(found, str):
            return found
        try:
            return self._paid(key, found, pay)
        finally:
            self._free.release()

    def _paid(self, key: str, attempt: int, pay: Callable[[], Paid]) -> str:
        try:
            paid = pay()
        except BaseException:
            self._change("UPDATE asked SET until = 0 WHERE question = ? AND attempt = ?", key, attempt)
            raise
        self._change(
            "UPDATE asked SET said = ?, tokens = ? WHERE question = ? AND attempt = ?",
            *(paid.said, paid.tokens, key, attempt),
        )
        return paid.said

    def _claimed(self, key: str, *, most: int) -> str | int | None:
        """The answer; or the number of this attempt, if it is the caller's turn to ask; None: look again later."""
        with self._lock:
            self._rows.execute("BEGIN IMMEDIATE")
            try:
                found = self._rows.execute("SELECT said, until FROM asked WHERE question = ?", (key,)).fetchall()
                said = [row[0] for row in found if row[0] is not None]
                if said:
                    return str(said[0])
                if any(row[1] > time.time() for row in found):
                    return None
                used = self._rows.execute("SELECT coalesce(sum(tokens), 0) FROM asked").fetchone()[0]
                if self._limit is not None and used + most > self._limit:
                    raise CappedError
                if not self._free.acquire(blocking=False):
                    return None
                row = (key, len(found), time.time() + self._wait_s + SLACK_S, most)
                try:
                    self._rows.execute("INSERT INTO asked (question, attempt, until, tokens) VALUES (?, ?, ?, ?)", row)
                except sqlite3.Error:
                    self._free.release()
                    raise
                return len(found)
            finally:
                self._rows.execute("COMMIT")

    def _change(self, statement: str, *values: str | int) -> None:
        with self._lock:
            self._rows.execute(statement, values)


def _opened(file: Path | None, *, wait_s: float) -> sqlite3.Connection:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    rows = sqlite3.connect(file or ":memory:", timeout=wait_s, isolation_level=None, check_same_thread=False)
    if file is not None:
        rows.execute("PRAGMA journal_mode=WAL")
    rows.execute(TABLE)
    return rows
