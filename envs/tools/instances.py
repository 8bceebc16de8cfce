"""A calculator, and look-ups in a table and in paragraphs, as tools."""

import ast
import operator
from collections.abc import Awaitable, Callable, Mapping
from difflib import SequenceMatcher

from envs.sql import SqlTool

OPERATORS: Mapping[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
LARGEST = 1e15
"""Largest number in a calculation; powers of large numbers would take for ever."""


async def calculator(expression: str) -> str:
    """The value of an arithmetic expression with + - * / // % ** and brackets."""
    value = _value(ast.parse(expression.strip(), mode="eval").body)
    return f"{value:g}" if isinstance(value, int) and abs(value) < 1e5 else f"{value:.10g}"


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and abs(number) <= LARGEST:
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            first, second = _value(left), _value(right)
            if isinstance(op, ast.Pow) and abs(second) > 100:
                raise ValueError(f"an exponent is at most 100, found {second:g}")
            value = OPERATORS[type(op)](first, second)
            if isinstance(value, complex) or abs(value) > LARGEST:
                raise ValueError(f"numbers are at most {LARGEST:g}")
            return value
    raise ValueError("an expression holds numbers, + - * / // % ** and brackets")


def sql(table: SqlTool) -> Callable[[str], Awaitable[str]]:
    """A tool that runs one SELECT on a table (envs/sql.py) and returns the ids that it finds."""

    async def select(query: str) -> str:
        """Run one SELECT whose first column is product_id; returns the ids."""
        found = table.search(query)
        if found.bad_query:
            raise ValueError(found.text)
        return found.text

    return select


def paragraphs(texts: Mapping[str, str]) -> Callable[[str], Awaitable[str]]:
    """A tool that returns the paragraph whose title is most like a query.

    Args:
        texts: title -> paragraph; at least one.
    """

    async def search(query: str) -> str:
        """Return the paragraph whose title is most like the query."""
        best = max(texts, key=lambda title: SequenceMatcher(None, query.lower(), title.lower()).ratio())
        return f"{best} : {texts[best]}"

    return search
