"""One session: its turns by who wrote them, and the sessions that memory connects it with."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from agile_ray.types import NO_WRITER, Outcome, Receipt, Session
from launch.report.look.listing import result
from launch.report.look.parts import POLICY, Part
from launch.report.look.stored import Stored
from launch.report.plain_table import plain_table

STYLES = {POLICY: "bold cyan", "expert": "magenta", "memory": "green", "tool": "blue"}
NUMBERS = ("logprob", "P(ask)", "value", "P(write)", "advantage", "reward", "version")


def show(
    stored: Stored,
    turns: Sequence[Part],
    console: Console,
    *,
    source: str,
    writers: Mapping[int, Session],
    readers: Iterable[Stored],
    lacks: Sequence[str],
) -> None:
    """Print a session.

    Args:
        stored: the session.
        turns: its parts.
        console: where to.
        source: where it is stored.
        writers: sessions whose entries it read, by position.
        readers: later sessions that read its entries.
        lacks: what is not stored of it.
    """
    session = stored.session
    console.print(
        f"{source}: {session.stream}, session {session.position} of {session.stream_length}, question "
        f"{session.question_id} ({session.kind}, {session.topic})",
        highlight=False,
    )
    console.print(f"{result(session)}: {_outcome(stored)}", highlight=False)
    for sentence in lacks:
        console.print(f"not stored: {sentence}", style="yellow", highlight=False)
    _show_turns(turns, console)
    _show_asks(session, console)
    _show_reads(session, writers, console)
    _show_readers(session, list(readers), console)


def _outcome(stored: Stored) -> str:
    session = stored.session
    found = [
        f"answer {session.answer!r}",
        f"reward {session.own_reward:g}",
        f"price {session.price / 1000:g}",
        "memory held the answer" if session.hindsight.known else "memory did not hold the answer",
        f"ended {session.ending.value}",
    ]
    if stored.credit is not None:
        found.append(f"credit {stored.credit:+.4f}")
    return "; ".join([*found, *session.remarks])


def _show_turns(turns: Sequence[Part], console: Console) -> None:
    shown = [name for name in NUMBERS if any(_numbers(part)[name] for part in turns)]
    segment = 0
    for part in turns:
        if part.segment != segment:
            segment = part.segment
            console.print(f"-- segment {segment}: the context was rewritten --", style="dim", highlight=False)
        text = part.text.strip("\n").replace("\n", f"\n{'':9} | ")
        console.print(Text(f"{part.who:>9} | ", "dim") + Text(text, STYLES.get(part.who, "")))
        numbers = _numbers(part)
        line = "  ".join(f"{name} {numbers[name]}" for name in shown if numbers[name])
        if line or part.decides:
            console.print(f"{'':11} {line}{'  <- credit' if part.decides else ''}", style="dim", highlight=False)


def _numbers(part: Part) -> dict[str, str]:
    low, high = part.versions or (0, 0)
    versions = "" if part.versions is None else str(low) if low == high else f"{low}-{high}"
    return {
        "logprob": _number(part.logprob, "{:.3f}"),
        "P(ask)": _number(part.ask_probability, "{:.3f}"),
        "value": _number(part.value, "{:.3f}"),
        "P(write)": _number(part.write_probability, "{:.3f}"),
        "advantage": _number(part.advantage, "{:+.2f}"),
        "reward": _number(part.reward or None, "{:+g}"),
        "version": versions,
    }


def _number(value: float | None, written: str) -> str:
    return "" if value is None else written.format(value + 0.0)  # without a minus sign of zero


def _show_asks(session: Session, console: Console) -> None:
    for receipt in session.receipts:
        words = f" {receipt.words!r}" if receipt.words else ""
        console.print(
            Text(
                f"asked {receipt.source}{words}: paid {receipt.price / 1000:g}, waited {receipt.latency_s:.2f} s, "
                + _said(receipt)
            )
        )


def _said(receipt: Receipt) -> str:
    answered = receipt.outcome is Outcome.ANSWERED
    return f"advice {receipt.advice!r}" if answered else f"no advice: {receipt.outcome}"


def _show_reads(session: Session, writers: Mapping[int, Session], console: Console) -> None:
    for use in session.reads:
        writer = writers.get(use.writer)
        if use.writer == NO_WRITER:
            who = "which memory held before the first session"
        elif writer is None:
            who = f"of session {use.writer}, which is not stored"
        else:
            paid = f"asked and paid {writer.paid / 1000:g}" if writer.asks else "did not ask"
            said = f"{paid}, question {writer.question_id}, answer {writer.answer!r}"
            who = f"of session {use.writer} ({result(writer)}, {said})"
        console.print(Text(f"read {use.kind}, similarity {use.similarity:.3f}, {who}"))


def _show_readers(session: Session, readers: Sequence[Stored], console: Console) -> None:
    if not session.writes:
        return
    kinds = ", ".join(dict.fromkeys(use.kind for use in session.writes))
    console.print(f"wrote {kinds}; read by {len(readers)} later sessions that are stored here", highlight=False)
    if not readers:
        return
    table = plain_table("reader", "similarity", "result", "reward", "credit", left=("reader", "result", "credit"))
    for one in readers:
        reader = one.session
        uses = [use for use in reader.reads if use.writer == session.position]
        without = any(session.position in other.writers for other in reader.hindsight.counterfactuals)
        table.add_row(
            f"session {reader.position}",
            f"{max(use.similarity for use in uses):.3f}",
            result(reader),
            f"{reader.own_reward:g}",
            "compared with not reading it" if without else "",
        )
    console.print(table)
