"""Tables of a page. On a telephone, columns that are `wide` are hidden."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table."""

    title: str
    left: bool = False  # aligned to the left
    wide: bool = False  # hidden on narrow pages
    long: bool = False  # its text wraps

    @property
    def classes(self) -> str:
        """Classes of style.css."""
        return " ".join(name for name in ("left", "wide", "long") if getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of texts."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    own: str | None = None  # the row whose first cell is this is set in bold

    @property
    def has_head(self) -> bool:
        """Whether a column has a title."""
        return any(column.title for column in self.columns)


def table(*columns: str, rows: Sequence[Sequence[str]], own: str | None = None) -> Table | None:
    """A table of these columns; None without rows.

    Args:
        columns: titles. The first one is aligned to the left. A title that begins with `~` is `wide`, one that begins
            with `=` is `long`.
        rows: as many texts each.
        own: the row whose first cell is this is set in bold.
    """
    if not rows:
        return None
    parts = [
        Column(
            title=title.lstrip("~="), left=index == 0 or title[:1] == "=", wide=title[:1] == "~", long=title[:1] == "="
        )
        for index, title in enumerate(columns)
    ]
    return Table(columns=parts, rows=rows, own=own)
