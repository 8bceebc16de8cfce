"""A list of sessions, a line each."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from agile_ray.evaluation.score import Cause, cause
from agile_ray.types import NO_WRITER, Ending, Session
from launch.report.look.stored import Stored
from launch.report.plain_table import plain_table

CAUSES = {
    Cause.PREDICTED_WRONG: "predicted wrong",
    Cause.ROWS_WRONG: "wrong rows",
    Cause.BAD_QUERY: "bad query",
    Cause.ADVICE_WRONG: "asked, still wrong",
    Cause.NO_ANSWER: "no answer",
    Cause.CUT: "cut",
}
LEFT = ("stream", "result", "kind", "answer", "reads")


def show(found: Sequence[Stored], console: Console, *, limit: int) -> None:
    """Print the first sessions.

    Args:
        found: sessions to list.
        console: where to.
        limit: how many.
    """
    trained = any(one.credit is not None for one in found)
    titles = ("stream", "session", "kind", "result", "asks", "paid", "reward", "known", "reads")
    table = plain_table(*titles, *(["credit"] if trained else []), "answer", left=LEFT)
    for one in found[:limit]:
        cells = [*_cells(one.session), *([_credit(one)] if trained else []), (one.session.answer or "")[:40]]
        table.add_row(*(Text(cell) for cell in cells), style=_style(one.session))
    console.print(table)
    if len(found) > limit:
        console.print(f"{len(found) - limit:,} more; --limit shows them", highlight=False)


def result(session: Session) -> str:
    """Right, why not, or why it failed."""
    if session.ending is Ending.FAILED:
        return f"failed: {session.error}"[:60]
    why = cause(session)
    return "right" if why is None else CAUSES[why]


def entry(writer: int) -> str:
    """Which session wrote an entry."""
    return "given" if writer == NO_WRITER else str(writer)


def _cells(session: Session) -> list[str]:
    return [
        session.stream,
        str(session.position),
        session.kind,
        result(session),
        str(session.asks),
        f"{session.paid / 1000:g}",
        f"{session.own_reward:g}",
        "known" if session.hindsight.known else "",
        " ".join(dict.fromkeys(entry(use.writer) for use in session.reads)),
    ]


def _credit(one: Stored) -> str:
    return "" if one.credit is None else f"{one.credit:+.3f}"


def _style(session: Session) -> str | None:
    if session.ending is Ending.FAILED:
        return "red"
    return None if session.correct else "yellow"
