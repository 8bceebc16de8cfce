"""What a paid endpoint was asked, said and cost, so that an equal question is paid once, and a limit holds.

One SQLite table, in a file or in memory. A row is written before the endpoint is asked. Each attempt adds to it the
most that the answer may cost, and takes it back if the endpoint turned the attempt away; the one that is answered
leaves its true cost. Attempts whose fate is unknown keep their reserve, since the endpoint may have been paid: a
connection was cut off, no answer came in time, or the process died. So the limit is never exceeded, whatever dies.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
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


class Claim:
    """The right to ask one question: nobody else asks it meanwhile. The meter of its attempts."""

    def __init__(self, spending: "Spending", key: str, attempt: int, *, most: int) -> None:
        """Claim a row.

        Args:
            spending: holds the row.
            key: of the question.
            attempt: number of the row among those of the question.
            most: tokens that one attempt may cost.
        """
        self.row = (key, attempt)
        self.most = most
        self._spending = spending

    def reserve(self) -> None:
        """Reserve the most that an attempt may cost.

        Raises:
            CappedError: the limit leaves no room.
        """
        self._spending.add(self.row, self.most)

    def release(self) -> None:
        """Take back what the last attempt reserved."""
        self._spending.add(self.row, -self.most)


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
        self._asking: set[str] = set()  # questions that threads of this process ask

    @property
    def tokens(self) -> int:
        """Tokens that were used, or are reserved."""
        with self._lock, closing(self._rows.execute("SELECT coalesce(sum(tokens), 0) FROM asked")) as found:
            return int(found.fetchone()[0])

    def once(self, question: str, *, most: int, pay: Callable[[Claim], Paid]) -> str:
        """What the endpoint says to a question; it is asked only if it has not said it yet.

        Args:
            question: all that the answer depends on.
            most: the tokens that one attempt may cost.
            pay: asks the endpoint, and reserves each attempt.

        Raises:
            CappedError: the limit leaves no room for an attempt, and this question has no answer yet.
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
            return self._paid(found, pay)
        finally:
            with self._lock:
                self._asking.discard(key)
            self._free.release()

    def _paid(self, claim: Claim, pay: Callable[[Claim], Paid]) -> str:
        try:
            paid = pay(claim)
        except BaseException:
            self._change("UPDATE asked SET until = 0 WHERE question = ? AND attempt = ?", *claim.row)
            self._change("DELETE FROM asked WHERE question = ? AND attempt = ? AND tokens = 0", *claim.row)
            raise
        statement = "UPDATE asked SET said = ?, tokens = tokens + ? WHERE question = ? AND attempt = ?"
        self._change(statement, paid.said, paid.tokens - claim.most, *claim.row)
        return paid.said

    def add(self, row: tuple[str, int], tokens: int) -> None:
        """Add to what a question costs.

        Args:
            row: of the question, and the number of the row among its rows.
            tokens: to add; those below 0 are taken back.

        Raises:
            CappedError: the limit leaves no room.
        """
        with self._transaction():
            self._check_room(tokens)
            statement = "UPDATE asked SET tokens = tokens + ? WHERE question = ? AND attempt = ?"
            self._rows.execute(statement, (tokens, *row))

    def _check_room(self, tokens: int) -> None:
        used = self._rows.execute("SELECT coalesce(sum(tokens), 0) FROM asked").fetchone()[0]
        if tokens > 0 and self._limit is not None and used + tokens > self._limit:
            raise CappedError

    def _claimed(self, key: str, *, most: int) -> str | Claim | None:
        """The answer; or the claim, if it is the caller's turn to ask; None: look again later."""
        with self._transaction():
            statement = "SELECT said, until, attempt FROM asked WHERE question = ?"
            found = self._rows.execute(statement, (key,)).fetchall()
            said = [row[0] for row in found if row[0] is not None]
            if said:
                return str(said[0])
            if key in self._asking or any(row[1] > time.time() for row in found):
                return None
            self._check_room(most)
            if not self._free.acquire(blocking=False):
                return None
            row = key, max((row[2] for row in found), default=-1) + 1
            statement = "INSERT INTO asked (question, attempt, until, tokens) VALUES (?, ?, ?, 0)"
            try:
                self._rows.execute(statement, (*row, time.time() + self._wait_s + SLACK_S))
            except sqlite3.Error:
                self._free.release()
                raise
            self._asking.add(key)
            return Claim(self, *row, most=most)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Nobody else writes meanwhile."""
        with self._lock:
            self._rows.execute("BEGIN IMMEDIATE")
            try:
                yield
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
