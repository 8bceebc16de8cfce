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
"""Wait between two looks for an answer that another thread or process asks for."""
LEEWAY_S = 2.0
"""How much longer than its deadline a request of another process may take before it counts as lost."""
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

    def __init__(self, spending: "Spending", key: str, attempt: int, *, most: int, end: float) -> None:
        """Claim a row.

        Args:
            spending: holds the row.
            key: of the question.
            attempt: number of the row among those of the question.
            most: tokens that one attempt may cost.
            end: no attempt begins after it, by `time.monotonic`.
        """
        self.row = (key, attempt)
        self.most = most
        self.end = end
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

    def __init__(self, file: Path | None, *, asks: str, limit: int | None, wait_s: float) -> None:
        """Open or create the table.

        Args:
            file: SQLite file; None: in memory.
            asks: what is asked, such as the endpoint and its model; others' answers are not used.
            limit: of tokens, over all that the file holds; None: none.
            wait_s: longest wait for an answer, whoever asks for it; as long may an attempt take that begins at its end.

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
            ExpertError: another thread or process asks it, and has no answer in time.
        """
        key = hashlib.sha256(f"{self._asks}\0{question}".encode()).hexdigest()
        end = time.monotonic() + self._wait_s
        while (found := self._claimed(key, most=most, end=end)) is None:
            if time.monotonic() > end:
                said = f"expert chat: a question that is being asked must be answered in {self._wait_s:g} s"
                raise ExpertError(said, late=True)
            time.sleep(POLL_S)
        if isinstance(found, str):
            return found
        try:
            paid = pay(found)
        except BaseException:
            self._change("UPDATE asked SET until = 0 WHERE question = ? AND attempt = ?", *found.row)
            self._change("DELETE FROM asked WHERE question = ? AND attempt = ? AND tokens = 0", *found.row)
            raise
        else:
            more = paid.tokens - most
            statement = "UPDATE asked SET said = ?, tokens = tokens + ? WHERE question = ? AND attempt = ?"
            self._change(statement, paid.said, more, *found.row)
            return paid.said
        finally:
            with self._lock:
                self._asking.discard(key)

    def add(self, row: tuple[str, int], tokens: int) -> None:
        """Add to what a question costs.

        Args:
            row: of the question, and the number of the row among its rows.
            tokens: to add; those below 0 are taken back.

        Raises:
            CappedError: the limit leaves no room.
        """
        with self._transaction():
            used = self._rows.execute("SELECT coalesce(sum(tokens), 0) FROM asked").fetchone()[0]
            if tokens > 0 and self._limit is not None and used + tokens > self._limit:
                raise CappedError
            statement = "UPDATE asked SET tokens = tokens + ? WHERE question = ? AND attempt = ?"
            self._rows.execute(statement, (tokens, *row))

    def _claimed(self, key: str, *, most: int, end: float) -> str | Claim | None:
        """The answer; or the claim, if it is for the caller to ask; None: somebody else asks."""
        with self._transaction():
            statement = "SELECT said, until, attempt FROM asked WHERE question = ?"
            found = self._rows.execute(statement, (key,)).fetchall()
            said = [row[0] for row in found if row[0] is not None]
            if said:
                return str(said[0])
            if key in self._asking or any(row[1] > time.time() for row in found):
                return None
            attempt = max((row[2] for row in found), default=-1) + 1
            until = time.time() + max(end - time.monotonic(), 0.0) + self._wait_s + LEEWAY_S
            statement = "INSERT INTO asked (question, attempt, until, tokens) VALUES (?, ?, ?, 0)"
            self._rows.execute(statement, (key, attempt, until))
            self._asking.add(key)
            return Claim(self, key, attempt, most=most, end=end)

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
