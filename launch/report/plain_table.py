"""Tables without rules, for terminals."""

from collections.abc import Collection

from rich.table import Table


def plain_table(*titles: str, left: Collection[str]) -> Table:
    """An empty table whose columns never wrap.

    Args:
        left: titles of the columns that are aligned to the left; all others are aligned to the right.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in titles:
        table.add_column(title, justify="left" if title in left else "right", no_wrap=True)
    return table
