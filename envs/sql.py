"""Runs SQL that the policy writes on one table of an SQLite database.

Independent layers protect the process from harmful or expensive queries:
    read only     the connection cannot write (`mode=ro`; `query_only` on the private copy of an in-memory database)
    authorizer    allows SELECT on the one table and functions that make no large values; nothing else, no recursion
    limits        length of the query, depth, columns, patterns; no attached database, no parameters; length of any
                  value: twice the longest row, at least 20,000 bytes
    deadline      CPU seconds of the query's thread, checked every few thousand steps of SQLite's virtual machine
    row limit     on the rows that are fetched
In every ORDER BY, missing values come last; in ascending order, SQLite would put them first.

For every query the policy reads either "rows : ..." or "error : ...". Which one does not depend on the machine's load,
since the deadline counts CPU time instead of the wall clock.
"""

import re
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from agile_ray.agent.environment import Found
from agile_ray.errors import ConfigError, ToolError

ID_NAME = "product_id"
"""The agent's name for the id column, whatever its name in the table (in the released ProductQA: asin)."""
TABLE_NAME = "products"
"""The agent's name for the table; the table's own name works too."""

_SHOWN_ERROR = 100  # characters of SQLite's message that the policy reads
_SELECTS = 8  # nested common tables can double while SQLite prepares a query, which no deadline stops
_STEPS = 20_000  # of SQLite's virtual machine between two checks of the deadline, which each wait for Python's lock

_LIMITS = {
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 2000,
    sqlite3.SQLITE_LIMIT_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 8,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 8,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_FUNCTIONS = frozenset(  # allowed, since none makes a value longer
    {
        "abs", "avg", "coalesce", "count", "glob", "ifnull", "iif", "instr",
        "length", "like", "lower", "ltrim", "max", "min", "nullif", "round",
        "rtrim", "substr", "substring", "sum", "total", "trim", "typeof", "upper",
    }
)  # fmt: skip
_BROKEN = frozenset(  # primary result codes that mean a fault of the database, not of the query
    {
        sqlite3.SQLITE_INTERNAL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_NOTADB,
    }
)
_PIECES = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")"""  # "x" is a text, as in the gold queries, unless it is a name
    r"|(?P<comment>--[^\n]*|/\*.*?(?:\*/|$))"
    r"|(?P<name>`(?:[^`]|``)*`|\[[^\]]*\]|[^\W\d]\w*)"
    r"|(?P<end>;)"
    r"|(?P<other>.)",
    re.DOTALL,
)


class SqlTool:
    """Answers queries on one table. Threads may share it: each running query has a connection of its own."""

    def __init__(
        self,
        database: Path | sqlite3.Connection,
        *,
        table: str,
        id_column: str = ID_NAME,
        row_limit: int = 100,
        deadline_s: float = 2.0,
        shown_rows: int = 10,
    ) -> None:
        """Open a file read-only, or make a private read-only copy of a connection's `main` database.

        Args:
            row_limit: most rows that are fetched; further ones are dropped.
            deadline_s: longest run of one query, CPU seconds.
            shown_rows: most ids that the policy reads; `Found.rows` has all that were fetched.

        Raises:
            ConfigError: the database cannot be read, or lacks the table or its id column.
        """
        self._table = table
        self._id_column = id_column
        self._names = {ID_NAME: id_column, TABLE_NAME: table}
        self._row_limit = row_limit
        self._deadline_s = deadline_s
        self._shown_rows = shown_rows
        self._lock = threading.Lock()  # of the next three
        self._database = database if isinstance(database, Path) else _open(database)  # queries use copies of it
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        connection = _open(database)
        with _readable(table):
            self.columns = _columns(connection, table=table, id_column=id_column)
            self.ids = _ids(connection, table=table, id_column=id_column)
            self._texts = frozenset(_occurring(self._names, connection, table=table, columns=self.columns))
            row_bytes = _longest_row(connection, table=table, columns=self.columns)
        self._value_bytes = max(_LIMITS[sqlite3.SQLITE_LIMIT_LENGTH], 2 * row_bytes)  # sorting needs a row and its key
        self._restrict(connection)
        self._idle.append(connection)

    def search(self, query: str) -> Found:
        """Run one SELECT whose first column is the id.

        Raises:
            ToolError: the database is broken or gone; no query can cause this.
        """
        try:
            statement = _statement(query, names=self._names, texts=self._texts)
            columns, rows = self._run(statement)
        except _BadQueryError as problem:
            return _bad(str(problem))
        if columns[0].lower() not in (ID_NAME, self._id_column.lower()):
            return _bad(f"select {ID_NAME} first, not {columns[0]}")
        ids = tuple(dict.fromkeys(str(row[0]) for row in rows))
        if not self.ids.issuperset(ids):
            return _bad(f"the first column holds something else than a {ID_NAME}")
        return Found(text=_listing(ids, self._shown_rows), rows=ids, bad_query=False)

    def texts(self, column: str, *, most: int) -> tuple[str, ...]:
        """The different texts in a column, sorted; none if it holds a number.

        Args:
            column: of the table.
            most: largest number of texts.

        Raises:
            ToolError: the database is broken or gone.
        """
        name, table = _quoted(column), _quoted(self._table)
        with self._connected() as connection:
            found = connection.execute(f"SELECT DISTINCT {name} FROM {table} WHERE {name} NOT NULL ORDER BY 1")
            values = [row[0] for row in found]
        return tuple(values[:most]) if all(isinstance(value, str) for value in values) else ()

    def close(self) -> None:
        """Close the database. A later search raises ToolError."""
        with self._lock:
            self._closed = True
            for connection in self._idle:
                connection.close()
            if isinstance(self._database, sqlite3.Connection):
                self._database.close()

    def _restrict(self, connection: sqlite3.Connection) -> None:
        """Let a connection run nothing but queries on the table."""
        for limit, value in _LIMITS.items():
            connection.setlimit(limit, value)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._value_bytes)
        connection.set_authorizer(self._authorize)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection that no other query uses meanwhile."""
        with self._lock:
            if self._closed:
                raise ToolError(f"sql table {self._table}: the database does not answer: it is closed")
            connection = self._idle.pop() if self._idle else self._another()
        try:
            yield connection
        finally:
            with self._lock:
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)

    def _another(self) -> sqlite3.Connection:
        try:
            connection = _open(self._database)
        except ConfigError as problem:  # it was there when the tool was opened
            raise ToolError(str(problem)) from problem
        self._restrict(connection)
        return connection

    def _run(self, statement: str) -> tuple[list[str], Sequence[tuple[object, ...]]]:
        try:
            with self._connected() as connection:
                stop_at = time.thread_time() + self._deadline_s
                connection.set_progress_handler(lambda: time.thread_time() > stop_at, _STEPS)
                cursor = connection.execute(statement)
                rows = cursor.fetchmany(self._row_limit)
                columns = [column[0] for column in cursor.description or ()]
                cursor.close()
        except sqlite3.Warning as problem:
            raise _BadQueryError(str(problem)) from problem
        except sqlite3.Error as problem:
            raise self._verdict(problem) from problem
        if not columns:
            raise _BadQueryError("only SELECT is allowed")
        return columns, rows

    def _verdict(self, problem: sqlite3.Error) -> Exception:
        code = getattr(problem, "sqlite_errorcode", None)
        broken = code is not None and code & 0xFF in _BROKEN
        gone = str(problem).lower() == f"no such table: {self._table.lower()}"  # the file has changed
        if broken or gone or isinstance(problem, sqlite3.ProgrammingError):
            return ToolError(f"sql table {self._table}: the database does not answer: {problem}")
        if code == sqlite3.SQLITE_INTERRUPT:
            return _BadQueryError(f"query took longer than {self._deadline_s:g} s")
        if code == sqlite3.SQLITE_AUTH:
            return _BadQueryError(f"only SELECT on {self._table} is allowed ({problem})")
        return _BadQueryError(str(problem))

    def _authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        """Allow reading the table. `source` names a view or trigger; there are none."""
        del database, source
        if action == sqlite3.SQLITE_SELECT:
            allowed = True
        elif action == sqlite3.SQLITE_READ:
            allowed = (first or "").lower() == self._table.lower()
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = (second or "").lower() in _FUNCTIONS
        else:
            allowed = False
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


class _BadQueryError(Exception):
    """The query is wrong; the policy reads the message."""


def _open(database: Path | sqlite3.Connection) -> sqlite3.Connection:
    try:
        if isinstance(database, Path):
            return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        database.backup(copy)
        copy.execute("PRAGMA query_only = ON")
        return copy
    except sqlite3.Error as problem:
        raise ConfigError(f"sql database {database}: cannot be opened read-only: {problem}") from problem


@contextmanager
def _readable(table: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as problem:
        raise ConfigError(f"sql table {table}: the database cannot be read: {problem}") from problem


def _columns(connection: sqlite3.Connection, *, table: str, id_column: str) -> tuple[str, ...]:
    """Names of the table's columns, in order."""
    columns = tuple(row[1] for row in connection.execute("SELECT * FROM pragma_table_info(?)", (table,)))
    if not columns:
        raise ConfigError(f"sql table {table}: no such table in the database")
    if id_column not in columns:
        raise ConfigError(f"sql table {table}: no column {id_column}, found {', '.join(columns)}")
    return columns


def _ids(connection: sqlite3.Connection, *, table: str, id_column: str) -> frozenset[str]:
    return frozenset(str(row[0]) for row in connection.execute(f"SELECT {_quoted(id_column)} FROM {_quoted(table)}"))


def _occurring(
    names: Mapping[str, str], connection: sqlite3.Connection, *, table: str, columns: Sequence[str]
) -> Iterator[str]:
    """Those of the agent's names that are also the text of a cell, or stand for a text of a cell, ignoring case."""
    same = " OR ".join(f"trim({_quoted(column)}) COLLATE NOCASE IN (?1, ?2)" for column in columns)
    for name, own in names.items():
        if connection.execute(f"SELECT 1 FROM {_quoted(table)} WHERE {same} LIMIT 1", (name, own)).fetchone():
            yield name


def _longest_row(connection: sqlite3.Connection, *, table: str, columns: Sequence[str]) -> int:
    """Bytes of the cells of the table's longest row."""
    sizes = " + ".join(f"coalesce(length(CAST({_quoted(column)} AS BLOB)), 0)" for column in columns)
    return connection.execute(f"SELECT max({sizes}) FROM {_quoted(table)}").fetchone()[0] or 0


def _quoted(name: str) -> str:
    """A name of the database, as SQL."""
    return '"' + name.replace('"', '""') + '"'


def as_written(query: str, *, table: str) -> str:
    """A gold query as the agent learns to write it: on TABLE_NAME, with a space after opening quotes and parentheses.

    In a byte-level tokenizer, a word after a space and the same word without one are different tokens. With the spaces,
    the query has the same tokens as its question, so the policy can copy them.
    """

    def _rewritten(match: re.Match[str]) -> str:
        piece = match[0]
        if match.lastgroup == "name" and piece.strip("`") == table:
            return TABLE_NAME
        return f"{piece[0]} {piece[1:]}" if piece[0] in "('\"`" else piece

    return _PIECES.sub(_rewritten, query)


def renamed(query: str, *, old: str, new: str) -> str:
    """A query with another name in place of a column's, outside of texts."""
    return _PIECES.sub(
        lambda match: new if match.lastgroup == "name" and match[0].strip("`[]") == old else match[0], query
    )


def _missing_last(statement: str) -> str:
    """A statement with NULLS LAST after each term of an ORDER BY that says neither FIRST nor LAST."""
    pieces: list[str] = []
    terms: list[str | None] = [None]  # by depth of parentheses: the term so far; None outside of ORDER BY
    last = ""  # word or sign before the piece, in lower case
    for match in _PIECES.finditer(statement):
        piece = match.group()
        word, term = piece.lower(), terms[-1]
        if word in (",", ")", "limit", "rows", "range", "groups"):
            pieces.append(_completed(term))
            terms[-1] = "" if word == "," and term is not None else None
            if word == ")" and len(terms) > 1:
                terms.pop()
        elif word == "by" and last == "order":
            terms[-1] = ""
        elif term is not None:
            terms[-1] = term + word
        if word == "(":
            terms.append(None)
        last = last if piece.isspace() else word
        pieces.append(piece)
    return "".join((*pieces, _completed(terms[-1])))


def _completed(term: str | None) -> str:
    """What to add after a term of an ORDER BY."""
    return " NULLS LAST " if term and term.strip() and not re.search(r"\bnulls\b", term) else ""


def _statement(query: str, *, names: Mapping[str, str], texts: Collection[str]) -> str:
    """The single statement in a text, without comments, with the database's names in place of the agent's.

    In double quotes, SQLite takes the name of a column for that column, and everything else for a text. So a name of
    the agent's in double quotes is that name, except for the names in `texts`, outside of FROM and JOIN.

    Quoted texts and names lose leading and trailing spaces and are otherwise kept.
    """
    if "\0" in query or not query.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in query):
        raise _BadQueryError("the query holds a letter that is no text")
    pieces = []
    ended = False
    last = ""  # word or sign before the piece, in lower case
    for match in _PIECES.finditer(query):
        piece, kind = match.group(), match.lastgroup
        if kind == "comment" or kind == "end":
            ended = ended or kind == "end"
            pieces.append(" ")
        elif ended and not piece.isspace() and piece != ".":
            raise _BadQueryError("one statement only, nothing may follow its semicolon")
        elif not ended:
            name = piece.strip('"`[] ').lower()
            named = kind == "name" or piece[0] == '"' and (name not in texts or last in ("from", "join"))
            own = names.get(name) if named else None
            pieces.append(_quoted(own) if own else _trimmed(piece))
            last = last if piece.isspace() else piece.lower()
    statement = "".join(pieces).strip()
    if not statement:
        raise _BadQueryError("the query is empty")
    if len(re.findall(r"\bselect\b", statement, re.IGNORECASE)) > _SELECTS:
        raise _BadQueryError(f"more than {_SELECTS} SELECT in one query")
    return _missing_last(statement)


def _trimmed(piece: str) -> str:
    return f"{piece[0]}{piece[1:-1].strip()}{piece[-1]}" if piece[0] in "'\"`[" and len(piece) > 1 else piece


def _listing(ids: Sequence[str], shown: int) -> str:
    more = len(ids) - shown
    return "rows : " + (" ".join(ids[:shown]) or "none") + (f" and {more} more" if more > 0 else "")


def _bad(reason: str) -> Found:
    short = reason if len(reason) <= _SHOWN_ERROR else reason[: _SHOWN_ERROR - 3] + "..."
    return Found(text=f"error : {short}", rows=(), bad_query=True)
