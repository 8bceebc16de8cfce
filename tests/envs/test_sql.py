"""The SQL tool: gold queries return gold rows, and a query that must not run returns an error text."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from agile_ray.errors import ConfigError, ToolError
from envs.sql import SqlTool, as_written

PANS = [("P1", "flat pan", 10.0, "Lodge"), ("P2", "deep pan", 20.0, "Ozeri"), ("P3", "wok", 30.0, "product_id")]

REFUSED = [
    "ATTACH DATABASE '/tmp/agile_ray_evil.db' AS evil",
    "DETACH DATABASE main",
    "PRAGMA query_only = OFF",
    "SELECT name AS product_id FROM pragma_table_info('secrets')",
    "SELECT name AS product_id FROM sqlite_master",
    "SELECT name AS product_id FROM sqlite_schema",
    "SELECT name AS product_id FROM sqlite_temp_master",
    "SELECT product_id FROM secrets",
    "SELECT product_id FROM pans WHERE brand = (SELECT word FROM secrets)",
    "SELECT a.product_id FROM pans a JOIN secrets b",
    "INSERT INTO pans VALUES ('P4', 'x', 1, 'x')",
    "INSERT INTO pans SELECT * FROM pans RETURNING asin",
    "REPLACE INTO pans VALUES ('P1', 'x', 1, 'x')",
    "UPDATE pans SET price = 0",
    "DELETE FROM pans",
    "DROP TABLE pans",
    "ALTER TABLE pans RENAME TO pots",
    "CREATE TABLE pots (x)",
    "CREATE TEMP TABLE pots (x)",
    "CREATE TEMP VIEW pots AS SELECT * FROM secrets",
    "CREATE INDEX fast ON pans (price)",
    "CREATE VIRTUAL TABLE pots USING fts5(x)",
    "VACUUM",
    "VACUUM INTO '/tmp/agile_ray_evil.db'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT here",
    "EXPLAIN SELECT product_id FROM pans",
    "WITH RECURSIVE n(product_id) AS (SELECT 1 UNION ALL SELECT product_id + 1 FROM n) SELECT product_id FROM n",
    "WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) AS product_id FROM n",
    "SELECT load_extension('evil') AS product_id",
    "SELECT product_id FROM pans WHERE load_extension('evil')",
    "SELECT product_id FROM pans WHERE randomblob(1000000000) > 1",
    "SELECT product_id FROM pans WHERE zeroblob(1000000000) > 1",
    "SELECT product_id FROM pans WHERE printf('%1000000000d', 1) > 1",
    "SELECT product_id FROM pans WHERE replace(title, 'a', title) = ''",
    "SELECT group_concat(product_id) AS product_id FROM pans",
    "SELECT product_id FROM pans WHERE hex(title) = 1",
    "SELECT value AS product_id FROM json_each('[1]')",
    "SELECT readfile('/etc/passwd') AS product_id",
    "SELECT title FROM pans",
    "SELECT title AS product_id FROM pans",
    "SELECT price AS product_id FROM pans",
    "SELECT NULL AS product_id FROM pans",
    "SELECT * FROM (SELECT title, product_id FROM pans)",
    'SELECT "product_id" FROM pans',
    "SELECT 'P1' FROM pans",
    "SELECT Material FROM pans",
    "SELECT product_id FORM pans",
    "SELECT product_id FROM pots",
    "SELECT product_id FROM pans WHERE",
    "SELECT product_id FROM pans WHERE brand = 'Lodge",
    "SELECT product_id FROM pans WHERE price < ?",
    "SELECT product_id FROM pans WHERE price < :price",
    "SELECT product_id FROM pans; DROP TABLE pans",
    "SELECT product_id FROM pans; and some words",
    "SELECT product_id FROM pans; SELECT product_id FROM pans",
    "SELECT product_id\0 FROM pans",
    "SELECT product_id FROM pans WHERE title = '\ud800'",
    "SELECT product_id FROM pans WHERE " + "(" * 500 + "1" + ")" * 500,
    "SELECT product_id FROM pans WHERE " + "NOT " * 200 + "1",
    "SELECT product_id FROM pans WHERE title IN (" + "'x'," * 2000 + "'x')",
    "SELECT product_id FROM pans WHERE CAST(x'ff' AS TEXT) LIKE '" + "%a" * 200 + "'",
    "SELECT CAST(x'ff' AS TEXT) AS product_id FROM pans",
    "SELECT abs(-9223372036854775808) AS product_id FROM pans",
    " UNION ALL ".join(["SELECT product_id FROM pans"] * 30),
    "",
    " ;; ",
    "-- only a comment",
    "what is the cheapest pan ?",
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "pans.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE pans (asin TEXT, title TEXT, price NUMERIC, brand TEXT)")
    connection.executemany("INSERT INTO pans VALUES (?, ?, ?, ?)", PANS)
    connection.execute("CREATE TABLE secrets (asin TEXT, word TEXT)")
    connection.execute("INSERT INTO secrets VALUES ('S1', 'hidden')")
    connection.commit()
    connection.close()
    return file


@pytest.fixture
def tool(database: Path) -> SqlTool:
    return SqlTool(database, table="pans", id_column="asin", deadline_s=1.0)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT product_id FROM pans", ("P1", "P2", "P3")),
        ("select `product_id` from `pans` where price < 25 ;", ("P1", "P2")),
        ("SELECT [product_id] FROM pans ORDER BY price DESC LIMIT 1;", ("P3",)),
        ("SELECT asin FROM pans WHERE price = (SELECT MAX(price) FROM pans)", ("P3",)),
        ("SELECT p.product_id AS product_id, p.price FROM pans p WHERE p.title LIKE '%pan'", ("P1", "P2")),
        ("SELECT product_id FROM pans WHERE product_id IN ('P2', 'P9')", ("P2",)),
        ('SELECT product_id FROM pans WHERE brand = "product_id"', ("P3",)),
        ("SELECT product_id FROM pans WHERE brand = 'product_id' -- product_id", ("P3",)),
        ("SELECT product_id FROM pans /* all; of them */ LIMIT 1 ; -- and no more", ("P1",)),
        ("SELECT product_id FROM pans LIMIT 1;.", ("P1",)),
        ("SELECT a.product_id FROM pans a, pans b WHERE a.price > b.price", ("P2", "P3")),
        ("WITH cheap AS (SELECT * FROM pans WHERE price < 15) SELECT product_id FROM cheap", ("P1",)),
        ("SELECT product_id FROM pans WHERE price < (SELECT AVG(price) FROM pans) GROUP BY brand", ("P1",)),
        ("SELECT product_id FROM pans WHERE price > 99", ()),
        ("SELECT ` product_id ` FROM ` products` WHERE brand = \" Lodge\" AND title = ' flat pan '", ("P1",)),
    ],
)
def test_a_query_returns_its_ids_once_each_in_order(tool: SqlTool, query: str, rows: tuple[str, ...]) -> None:
    found = tool.search(query)
    assert not found.bad_query, found.text
    assert found.rows == rows
    assert found.text == "rows : " + (" ".join(rows) or "none")


@pytest.mark.parametrize(
    ("query", "written"),
    [
        ('SELECT product_id FROM `pans` WHERE brand = "A"', 'SELECT product_id FROM products WHERE brand = " A"'),
        ("size = (SELECT MAX(size) FROM pans)", "size = ( SELECT MAX( size) FROM products)"),
        ('brand = "pans" AND kind = `pots`', 'brand = " pans" AND kind = ` pots`'),
        ('name = "Men\'s (3)"', 'name = " Men\'s (3)"'),
        ("price < 30", "price < 30"),
    ],
)
def test_a_gold_query_is_rewritten_with_the_agents_table_name_and_spaces(query: str, written: str) -> None:
    assert as_written(query, table="pans") == written


@pytest.mark.parametrize("query", REFUSED)
def test_a_forbidden_query_returns_an_error_text_and_changes_nothing(tool: SqlTool, database: Path, query: str) -> None:
    before = database.read_bytes()
    start = time.thread_time()
    found = tool.search(query)
    assert found.bad_query
    assert found.rows == ()
    assert found.text.startswith("error : ")
    assert len(found.text) <= 110
    assert "hidden" not in found.text
    assert time.thread_time() - start < 3
    assert database.read_bytes() == before
    assert not Path("/tmp/agile_ray_evil.db").exists()
    assert tool.search("SELECT product_id FROM pans").rows == ("P1", "P2", "P3")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS product_id FROM " + ", ".join(f"pans t{i}" for i in range(30)),
        "SELECT t0.product_id FROM "
        + ", ".join(f"pans t{i}" for i in range(20))
        + " ORDER BY t0.title || t1.title || t2.title || t19.title",
        "SELECT product_id FROM pans WHERE (SELECT sum(length(a.title || b.title)) FROM "
        + ", ".join(f"pans {name}" for name in "abcdefghijklmnopqrst")
        + ") > 0",
    ],
)
def test_a_query_that_takes_too_long_is_stopped_at_its_deadline(database: Path, query: str) -> None:
    tool = SqlTool(database, table="pans", id_column="asin", deadline_s=0.3)
    start = time.thread_time()
    found = tool.search(query)
    assert found.bad_query
    assert found.text == "error : query took longer than 0.3 s"
    assert 0.25 < time.thread_time() - start < 1.5


def test_common_tables_that_grow_exponentially_are_refused_at_once(tool: SqlTool) -> None:
    tables = ["t0 AS (SELECT product_id FROM pans)"]
    tables += [f"t{i} AS (SELECT a.product_id FROM t{i - 1} a, t{i - 1} b)" for i in range(1, 40)]
    start = time.thread_time()
    found = tool.search(f"WITH {', '.join(tables)} SELECT product_id FROM t39")
    assert found.bad_query
    assert "took longer" not in found.text
    assert time.thread_time() - start < 0.9  # of its deadline of 1 s


def test_rows_are_complete_up_to_the_limit_and_shown_in_part(database: Path) -> None:
    tool = SqlTool(database, table="pans", id_column="asin", row_limit=2, shown_rows=1)
    found = tool.search("SELECT product_id FROM pans")
    assert found.rows == ("P1", "P2")
    assert found.text == "rows : P1 and 1 more"


def test_a_copy_of_a_connection_answers_and_leaves_the_connection_writable() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (product_id TEXT, price INTEGER)")
    connection.execute("INSERT INTO items VALUES ('I1', 3)")
    connection.commit()
    tool = SqlTool(connection, table="items")
    connection.execute("INSERT INTO items VALUES ('I2', 4)")
    assert tool.search("SELECT product_id FROM items").rows == ("I1",)
    assert tool.search("DELETE FROM items").bad_query


@pytest.mark.parametrize("name", ['12" pans', '"', "a`b", "men's; DROP TABLE x", "select", "wok ü [5]"])
def test_a_table_and_an_id_column_may_have_any_name(name: str) -> None:
    connection = sqlite3.connect(":memory:")
    quoted = '"' + name.replace('"', '""') + '"'
    connection.execute(f"CREATE TABLE {quoted} ({quoted} TEXT, price INTEGER)")
    connection.execute(f"INSERT INTO {quoted} VALUES ('I1', 3), ('I2', 4)")
    connection.commit()
    tool = SqlTool(connection, table=name, id_column=name)
    assert tool.ids == {"I1", "I2"}
    backticks = "`" + name.replace("`", "``") + "`"
    for table in ("products", quoted, backticks):
        found = tool.search(f"SELECT product_id FROM {table} WHERE price > 3")
        assert (found.rows, found.bad_query) == (("I2",), False), found.text


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ('SELECT "product_id" FROM "products" WHERE "price" < 15', ("P1",)),
        ('select " Product_ID " from " PRODUCTS" order by "products"."price" desc limit 1', ("P3",)),
        (
            'SELECT p."product_id" FROM pans p JOIN "products" q WHERE p.price > q.price AND q."product_id" = \'P2\'',
            ("P3",),
        ),
        ('SELECT "asin" FROM "pans" WHERE brand = "Lodge"', ("P1",)),
        ('SELECT product_id FROM pans WHERE brand = "products"', ()),
    ],
)
def test_the_agents_names_may_be_in_double_quotes(database: Path, query: str, rows: tuple[str, ...]) -> None:
    connection = sqlite3.connect(database)
    connection.execute("UPDATE pans SET brand = 'Ikea' WHERE asin = 'P3'")  # else the name is a text
    connection.commit()
    connection.close()
    found = SqlTool(database, table="pans", id_column="asin").search(query)
    assert (found.rows, found.bad_query) == (rows, False), found.text


@pytest.mark.parametrize("text", ["products", " Products ", "product_id"])
def test_a_name_that_is_also_the_text_of_a_cell_stays_a_text_in_double_quotes(database: Path, text: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute("UPDATE pans SET brand = ? WHERE asin = 'P3'", (text,))
    connection.commit()
    connection.close()
    tool = SqlTool(database, table="pans", id_column="asin")
    query = f'SELECT product_id FROM "products" WHERE trim(lower(brand)) = "{text.strip().lower()}"'
    assert tool.search(query).rows == ("P3",)


def test_a_text_is_not_taken_for_the_name_of_the_table(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("UPDATE pans SET brand = 'pans' WHERE asin = 'P3'")
    connection.commit()
    connection.close()
    tool = SqlTool(database, table="pans", id_column="asin")
    assert tool.search('SELECT product_id FROM "products" WHERE brand = "products"').text == "rows : none"


@pytest.mark.parametrize("cell", ["x" * 20_001, "ü" * 300_000])
def test_a_long_cell_leaves_its_column_readable(database: Path, cell: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute("UPDATE pans SET title = ?, brand = ? WHERE asin = 'P1'", (cell, cell[1:]))
    connection.commit()
    connection.close()
    tool = SqlTool(database, table="pans", id_column="asin")
    for query, rows in {
        f"SELECT product_id FROM pans WHERE title LIKE '%{cell[0] * 9}%'": ("P1",),
        "SELECT product_id, * FROM pans ORDER BY length(title), title": ("P3", "P2", "P1"),
        "SELECT a.product_id, a.title, b.title FROM pans a JOIN pans b ON a.title = b.title ORDER BY a.price": (
            "P1",
            "P2",
            "P3",
        ),
        "SELECT product_id FROM pans WHERE title = (SELECT max(brand) FROM pans)": (),
    }.items():
        found = tool.search(query)
        assert (found.rows, found.bad_query) == (rows, False), found.text
    assert tool.search("SELECT product_id FROM pans WHERE title || title || title || title || title = ''").bad_query


def test_threads_may_share_a_tool(tool: SqlTool) -> None:
    texts: list[str] = []
    query = "SELECT product_id FROM pans ORDER BY price DESC"
    threads = [
        threading.Thread(target=lambda: texts.extend(tool.search(query).text for _ in range(50))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert texts == ["rows : P3 P2 P1"] * 200


class Clock:
    """Stands for time: no query has used any until a test says so, or a minute is over."""

    def __init__(self) -> None:
        self.looked_at, self.moved = threading.Event(), threading.Event()
        self.end = time.monotonic() + 60

    def thread_time(self) -> float:
        self.looked_at.set()
        return 9.0 if self.moved.is_set() or time.monotonic() > self.end else 0.0


@pytest.mark.parametrize("private", [False, True])
def test_a_query_does_not_wait_for_one_that_another_thread_runs(
    database: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    with closing(sqlite3.connect(database)) as source:
        tool = SqlTool(source if private else database, table="pans", id_column="asin", deadline_s=1.0)
    clock = Clock()
    monkeypatch.setattr("envs.sql.time", clock)
    finished: list[str] = []
    slow = (
        f"SELECT asin FROM pans WHERE (SELECT count(*) FROM {', '.join(f'pans {x}' for x in 'abcdefghijklmnopq')}) > 0"
    )
    thread = threading.Thread(target=lambda: finished.append(tool.search(slow).text))
    thread.start()
    assert clock.looked_at.wait(60)
    found = [tool.search("SELECT asin FROM pans WHERE price = 5").text for _ in range(3)]
    assert finished == []
    clock.moved.set()
    thread.join(timeout=60)
    assert finished == ["error : query took longer than 1 s"]
    monkeypatch.undo()
    assert found == [tool.search("SELECT asin FROM pans WHERE price = 5").text] * 3


def test_a_database_that_is_missing_broken_or_has_other_columns_is_refused(database: Path) -> None:
    broken = database.with_name("broken.db")
    broken.write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigError, match="cannot be"):
        SqlTool(database.with_name("missing.db"), table="pans")
    with pytest.raises(ConfigError, match="not a database"):
        SqlTool(broken, table="pans")
    with pytest.raises(ConfigError, match="no such table"):
        SqlTool(database, table="pots")
    with pytest.raises(ConfigError, match="no column product_id, found asin, title, price, brand"):
        SqlTool(database, table="pans")
    assert not database.with_name("missing.db").exists()


@pytest.mark.parametrize("content", [b"", b"\x07" * 8192])
def test_a_database_that_breaks_later_is_a_tool_error(database: Path, content: bytes) -> None:
    tool = SqlTool(database, table="pans", id_column="asin")
    database.write_bytes(content)
    with pytest.raises(ToolError, match="does not answer"):
        tool.search("SELECT product_id FROM pans")


def test_a_search_with_a_closed_tool_is_a_tool_error(tool: SqlTool) -> None:
    tool.close()
    with pytest.raises(ToolError, match="closed"):
        tool.search("SELECT product_id FROM pans")


@pytest.mark.parametrize(
    ("order", "rows"),
    [
        ("price", ("P2", "P1", "P3")),
        ("price ASC LIMIT 1", ("P2",)),
        ("price DESC", ("P1", "P2", "P3")),
        ("price NULLS FIRST", ("P3", "P2", "P1")),
        ("(price), product_id", ("P2", "P1", "P3")),
        ("brand DESC, price", ("P1", "P3", "P2")),
    ],
)
def test_missing_values_come_last(order: str, rows: tuple[str, ...]) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE pans (product_id TEXT, price NUMERIC, brand TEXT)")
    connection.executemany("INSERT INTO pans VALUES (?, ?, ?)", [("P1", 9, "B"), ("P2", 3, "A"), ("P3", None, "B")])
    connection.commit()
    tool = SqlTool(connection, table="pans")
    assert tool.search(f"SELECT product_id FROM products ORDER BY {order}").rows == rows
    least = "SELECT product_id FROM products WHERE price = (SELECT price FROM products ORDER BY price LIMIT 1)"
    assert tool.search(least).rows == ("P2",)


def test_a_column_of_texts_lists_them_and_a_column_of_numbers_none(tool: SqlTool) -> None:
    assert tool.texts("title", most=2) == ("deep pan", "flat pan")
    assert tool.texts("price", most=9) == ()
