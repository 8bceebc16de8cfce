"""The asks of an inbox: one table in an SQLite file, which survives the end of its process at any moment.

An ask begins open and is closed once: answered, refused, unknown or late. Every change is one statement with its own
condition, so of several people, threads or processes one changes an ask and the others are told why they did not.

Whoever opens an ask holds it for a while (a lease), so two people do not spend time on the same ask. The lease only
saves time; what keeps an ask from being answered twice is the condition that it is open.
"""

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from agile_ray.errors import AgileError, ConfigError
from agile_ray.inbox.asks import ASK, Ask, Record, State, Told

FILE = "inbox.sqlite"
LEASE_S = 120.0
"""How long an ask is held after the last sign of whoever opened it."""
LISTED = 200
"""Maximum number of open asks that are listed; the oldest."""
BUSY_S = 10.0
"""Longest wait for another process that writes."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS asks (
    key TEXT PRIMARY KEY, ask TEXT NOT NULL, question TEXT NOT NULL, asked_s REAL NOT NULL, due_s REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'open', said TEXT NOT NULL DEFAULT '', answer TEXT NOT NULL DEFAULT '',
    by TEXT NOT NULL DEFAULT '', closed_s REAL, holder TEXT NOT NULL DEFAULT '', held_s REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS open_asks ON asks (asked_s) WHERE state = 'open';
CREATE VIRTUAL TABLE IF NOT EXISTS answered USING fts5(question, said UNINDEXED, answer UNINDEXED);
CREATE TRIGGER IF NOT EXISTS keep_answer AFTER UPDATE OF state ON asks WHEN NEW.state = 'answered' BEGIN
    INSERT INTO answered (question, said, answer) VALUES (NEW.question, NEW.said, NEW.answer);
END;
"""


class TakenError(AgileError):
    """An ask is closed, or somebody else holds it."""


class MissingAskError(AgileError):
    """No ask has this key."""


class OtherAskError(AgileError):
    """The same key names another question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An open ask."""

    ask: Ask
    asked_s: float  # seconds since 1970, as all times here
    due_s: float
    holder: str  # "" if nobody holds it


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar:
    """A question that was answered earlier."""

    question: str
    text: str
    answer: str


class Queue:
    """The table. One thread at a time uses it; others open their own."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make one.

        Raises:
            ConfigError: the file is no inbox.
        """
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise ConfigError(f"{path}: must be an inbox's file that can be written, found: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def post(self, ask: Ask, *, deadline_s: float, now: float) -> bool:
        """Add an ask unless it is there, and say whether it is new. One that is there keeps its words.

        Raises:
            OtherAskError: the key is there with another question, or the agent saw something else.
        """
        added = self._db.execute(
            "INSERT INTO asks (key, ask, question, asked_s, due_s) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (ask.key, ASK.dump_json(ask).decode(), ask.text, now, now + deadline_s),
        )
        there = ASK.validate_json(str(self._row(ask.key, "ask")[0]))
        if replace(there, ask_probability=ask.ask_probability, words=ask.words) != ask:  # as newer weights give them
            raise OtherAskError(
                f"{ask.key}: an ask keeps its question, found another one; give each task its own inbox"
            )
        return added.rowcount == 1

    def told(self, key: str) -> Told:
        """Where an ask is.

        Raises:
            MissingAskError: there is none.
        """
        state, said, answer = self._row(key, "state, said, answer")
        return Told(state=State(str(state)), text=str(said), answer=str(answer))

    def expire(self, now: float) -> list[str]:
        """Close the asks whose deadline has passed, and name them."""
        rows = self._db.execute(
            "UPDATE asks SET state = 'late', closed_s = ?1 WHERE state = 'open' AND due_s <= ?1 RETURNING key", (now,)
        )
        return [key for (key,) in rows.fetchall()]

    def claim(self, key: str, *, who: str, now: float) -> Waiting:
        """Hold an ask for `LEASE_S`, again or for the first time.

        Raises:
            TakenError: it is closed, or somebody else holds it.
            MissingAskError: there is none.
        """
        done = self._db.execute(
            "UPDATE asks SET holder = ?2, held_s = ?3 + ?4 WHERE key = ?1 AND state = 'open' AND due_s > ?3 "
            "AND (holder IN ('', ?2) OR held_s <= ?3)",
            (key, who, now, LEASE_S),
        )
        if done.rowcount != 1:
            raise self._taken(key)
        return self._waiting(self._row(key, "ask, asked_s, due_s, holder, held_s"), now)

    def release(self, key: str, *, who: str) -> None:
        """Hold an ask no more."""
        self._db.execute("UPDATE asks SET holder = '', held_s = 0 WHERE key = ? AND holder = ?", (key, who))

    def finish(self, key: str, told: Told, *, who: str, by: str, now: float) -> None:
        """Close an ask. The same again, by the same person, changes nothing.

        Args:
            key: of the ask.
            told: what becomes of it.
            who: holds it.
            by: the person's name.
            now: seconds since 1970.

        Raises:
            TakenError: it is closed otherwise, or somebody else holds it.
            MissingAskError: there is none.
        """
        done = self._db.execute(
            "UPDATE asks SET state = ?3, said = ?4, answer = ?5, by = ?6, closed_s = ?7, holder = ?2 WHERE key = ?1 "
            "AND state = 'open' AND due_s > ?7 AND (holder IN ('', ?2) OR held_s <= ?7)",
            (key, who, str(told.state), told.text, told.answer, by, now),
        )
        if done.rowcount != 1 and not (self._row(key, "holder")[0] == who and self.told(key) == told):
            raise self._taken(key)

    def waiting(self, now: float) -> list[Waiting]:
        """Open asks, the oldest first, `LISTED` of them at most."""
        rows = self._db.execute(
            "SELECT ask, asked_s, due_s, holder, held_s FROM asks WHERE state = 'open' ORDER BY asked_s, key LIMIT ?",
            (LISTED,),
        )
        return [self._waiting(row, now) for row in rows.fetchall()]

    def counts(self) -> dict[str, int]:
        """Number of asks by state."""
        found = dict(self._db.execute("SELECT state, count(*) FROM asks GROUP BY state").fetchall())
        return {str(state): int(found.get(str(state), 0)) for state in State}

    def similar(self, text: str, *, limit: int = 5) -> list[Similar]:
        """Answered questions that share words with a text, the nearest first (BM25)."""
        words = list(dict.fromkeys(re.findall(r"\w+", text.lower())))[:64]
        if not words:
            return []
        rows = self._db.execute(
            "SELECT question, said, answer FROM answered WHERE answered MATCH ? ORDER BY rank LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), limit),
        )
        return [Similar(question=question, text=said, answer=answer) for question, said, answer in rows.fetchall()]

    def records(self) -> Iterator[Record]:
        """Every ask with what became of it, in the order of asking."""
        rows = self._db.execute(
            "SELECT ask, state, said, answer, by, asked_s, closed_s FROM asks ORDER BY asked_s, key"
        )
        for ask, state, said, answer, by, asked_s, closed_s in rows:
            told = Told(state=State(state), text=said, answer=answer)
            yield Record(ask=ASK.validate_json(ask), told=told, by=by, asked_s=asked_s, closed_s=closed_s)

    def _row(self, key: str, columns: str) -> tuple[object, ...]:
        row: tuple[object, ...] | None = self._db.execute(
            f"SELECT {columns} FROM asks WHERE key = ?",  # noqa: S608  columns are of this module
            (key,),
        ).fetchone()
        if row is None:
            raise MissingAskError(f"{key}: no ask has this key")
        return row

    def _waiting(self, row: tuple[object, ...], now: float) -> Waiting:
        ask, asked_s, due_s, holder, held_s = row
        held = float(str(held_s)) > now
        return Waiting(
            ask=ASK.validate_json(str(ask)),
            asked_s=float(str(asked_s)),
            due_s=float(str(due_s)),
            holder=str(holder) if held else "",
        )

    def _taken(self, key: str) -> TakenError:
        state, by = self._row(key, "state, by")
        if state == State.OPEN:
            return TakenError(f"{key}: somebody else is answering it; open another one")
        return TakenError(f"{key}: it is closed already: {state}{f' by {by}' if by else ''}")
