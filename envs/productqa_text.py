"""What an agent reads of a question of ProductQA, and the queries that answer it.

products : price dollar | brand : Bialetti, Lodge | size inch | oven_safe_temperature F        the table
Bialetti 6168 ... ; price 21.44 ; brand Bialetti ; ... ; Shape round                           the page's product
question : which Lodge pan is the cheapest ?

gold query     SELECT product_id FROM products WHERE brand = " Lodge" ORDER BY price ASC LIMIT 1
wrong query    SELECT product_id FROM products WHERE brands = " Lodge" ORDER BY price ASC LIMIT 1
"""

from collections.abc import Collection, Iterator
from random import Random

from agile_ray.agent.environment import Found
from agile_ray.seeds import derive
from envs.productqa_files import AnnotatedQuestion, Category
from envs.rows import clean, short
from envs.sql import TABLE_NAME, SqlTool, as_written, renamed

TITLE_WORDS = 8  # of a product's title that the policy reads; titles have up to 40
VALUES = 24  # different texts of a column that the policy reads; the release has at most 20 products in a table
_NOT_SEARCHED = ("id", "asin", "title")


def columns_shown(category: Category, tool: SqlTool, *, values: bool) -> str:
    """The table with its searchable columns.

    It has the name that queries use, since its own name says nothing that a product's title does not.

    Args:
        category: of the table.
        tool: on the table.
        values: show each column's different texts, or the unit of its numbers.
    """
    names = [name for name in tool.columns if name not in _NOT_SEARCHED]
    if not values:
        return f"{TABLE_NAME} : {' '.join(names)}"
    return f"{TABLE_NAME} : {' | '.join(_column(name, category, tool) for name in names)}"


def _column(name: str, category: Category, tool: SqlTool) -> str:
    texts = tool.texts(name, most=VALUES)
    return f"{name} : {', '.join(texts)}" if texts else f"{name} {category.units.get(name, 'number')}"


def product_shown(asin: str, category: Category) -> str:
    """A product with its features; absent values are left out."""
    features = category.products.get(asin, {})
    title = short(features.get("title") or asin, TITLE_WORDS)
    rest = [f"{name} {clean(value)}" for name, value in features.items() if value and name != "title"]
    return " ; ".join((title, *rest))


def answers(rows: Collection[str], gold: Collection[str]) -> bool:
    """AGILE's rule for search questions: rows are some of the gold ones, and none only if there are no gold ones."""
    return set(rows) <= set(gold) and bool(rows) == bool(gold)


def gold_query(annotated: AnnotatedQuestion, *, table: str, tool: SqlTool) -> str:
    """The shorter gold query that the tool answers rightly: the one for one product, else the one for all; "" if none.

    Raises:
        ToolError: the database is broken or gone.
    """
    extra, gold = annotated.extra_data, {hit.asin for hit in annotated.hits}
    for written in (extra.sql, extra.answer) if extra else ():
        query = as_written((written or "").strip().rstrip(";.").strip(), table=table)
        if _finds(tool.search(query), gold):
            return query
    return ""


def _finds(found: Found, gold: Collection[str]) -> bool:
    return not found.bad_query and found.rows is not None and answers(found.rows, gold)


def wrong_query(query: str, *, tool: SqlTool, key: str) -> str:
    """The query with a column's name misspelt, so that the tool refuses it; "" if there is none.

    Args:
        query: a gold query.
        tool: refuses it.
        key: draws the misspelling; the same key draws the same one.

    Raises:
        ToolError: the database is broken or gone.
    """
    pairs = [(name, wrong) for name in tool.columns if name in query for wrong in _misspelt(name)]
    Random(derive(0, "misspelt", key)).shuffle(pairs)
    candidates = (renamed(query, old=name, new=wrong) for name, wrong in pairs)
    return next((one for one in candidates if one != query and tool.search(one).bad_query), "")


def _misspelt(name: str) -> Iterator[str]:
    words = name.split("_")
    if len(words) > 1:
        yield from ("_".join((*words[:place], *words[place + 1 :])) for place in range(len(words)))
    yield name[:-1] if name.endswith("s") else f"{name}s"
