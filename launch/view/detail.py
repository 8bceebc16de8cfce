"""One session with everything that is stored of it, and the sessions that memory connects it with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.errors import ConfigError
from agile_ray.record.store import Chosen
from agile_ray.types import NO_WRITER, MemoryUse, Receipt, Session
from launch.report.look import stored
from launch.report.look.parts import Part, lacks, parts
from launch.report.look.stored import Stored
from launch.view.rows import Row
from launch.view.runs import Opened, Runs
from launch.view.tokens import Token, tokens


class Used(StrEnum):
    """What a session did whose answer memory held."""

    READ = "read"  # it read an entry on its question's item
    OTHER = "other"  # it read other entries only
    NOTHING = "nothing"  # it read none


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPart:
    """One turn of the policy, or what it read between two turns, token by token."""

    part: Part
    tokens: Sequence[Token]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """An entry that the session read."""

    use: MemoryUse
    given: bool  # memory held it before the first session
    writer: Row | None  # the session that wrote it, with what that asked and paid; None if it is not stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A later session that read an entry of this one."""

    row: Row
    similarity: float | None  # of the two questions, the highest of the entries; None if it is in a later iteration
    credit: float | None  # what it gives of the credit; None: nothing that is stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One session."""

    row: Row
    session: Session
    parts: Sequence[ShownPart]
    reads: Sequence[Read]
    readers: Sequence[Reader]
    unshared: float | None  # credit that no single reader gives: in `linked` what is expected of later ones
    receipts: Sequence[Receipt]
    memory_use: Used | None  # None: memory did not hold the answer, or it is not stored on what an entry is
    lacks: Sequence[str]  # what is not stored of it, and why


def detail(runs: Runs, opened: Opened, row: int) -> Detail:
    """Read one session.

    Args:
        runs: that the source belongs to.
        opened: the source.
        row: of the session.

    Raises:
        ConfigError: its file is damaged.
    """
    one, others = _read(opened, row)
    missing: list[str] = []
    shown: list[ShownPart] = []
    if any(line.segment is not None for line in one.segments):
        try:
            shown = show_parts(one, runs.tokenizer(opened.run))
        except ConfigError as error:
            missing = [f"no text of tokens: the tokenizer can't be read ({error})"]
    return describe(opened, row, one, shown, others=others, missing=missing)


def describe(
    opened: Opened,
    row: int,
    one: Stored,
    shown: Sequence[ShownPart],
    *,
    others: Mapping[int, Stored],
    missing: Sequence[str] = (),
) -> Detail:
    """Join what is stored of a session with the sessions that memory connects it with.

    Args:
        opened: the source.
        row: of the session.
        one: the session.
        shown: its parts.
        others: sessions of its stream in the same file, by position; at least its readers there.
        missing: what can't be shown, and why.
    """
    session = one.session
    missing = [*lacks(one, trained=opened.is_training), *missing]
    shares = one.credit_shares or {}
    readers = [_reader(opened, row, reader, others, shares) for reader in opened.links.readers.get(row, ())]
    if one.credit and one.credit_shares is None:
        missing.append("no share of credit by reader: files before schema 5 hold the sum")
    return Detail(
        row=opened.rows([row])[0],
        session=session,
        parts=shown,
        reads=[_read_entry(opened, row, use) for use in session.reads],
        readers=readers,
        unshared=None if one.credit is None else one.credit - sum(shares.values()),
        receipts=session.receipts,
        memory_use=_memory_use(session),
        lacks=missing,
    )


def show_parts(one: Stored, tokenizer: Tokenizer) -> list[ShownPart]:
    """The parts of a session with their tokens; [] if its tokens are not stored."""
    lines = {line.segment.index: line for line in one.segments if line.segment is not None}
    return [ShownPart(part=part, tokens=tokens(lines[part.segment], part, tokenizer)) for part in parts(one, tokenizer)]


def _memory_use(session: Session) -> Used | None:
    hindsight = session.hindsight
    if not hindsight.known or not hindsight.same_item:
        return None
    writers = {use.writer for use in session.reads}
    if writers & set(hindsight.same_item):
        return Used.READ
    if NO_WRITER in writers:
        return None
    return Used.OTHER if session.reads else Used.NOTHING


def _read(opened: Opened, row: int) -> tuple[Stored, dict[int, Stored]]:
    """The session, and those of its readers that the same file holds, by position."""
    table = opened.table
    position = table["position"][row].as_py()
    wanted = {position} | {table["position"][reader].as_py() for reader in opened.links.readers.get(row, ())}
    chosen = Chosen(stream=table["stream"][row].as_py(), positions=wanted)
    found = {one.session.position: one for one in stored.read(opened.stored(row), chosen)}
    return found[position], found


def _read_entry(opened: Opened, row: int, use: MemoryUse) -> Read:
    positions = opened.table["position"]
    writers = (writer for writer in opened.links.writers.get(row, ()) if positions[writer].as_py() == use.writer)
    writer = next(writers, None)
    return Read(use=use, given=use.writer == NO_WRITER, writer=None if writer is None else opened.rows([writer])[0])


def _reader(opened: Opened, writer: int, row: int, others: Mapping[int, Stored], shares: Mapping[int, float]) -> Reader:
    position, iteration = opened.table["position"], opened.table["iteration"]
    one = others.get(position[row].as_py()) if iteration[row] == iteration[writer] else None
    if one is None:
        return Reader(row=opened.rows([row])[0], similarity=None, credit=None)
    read = [use.similarity for use in one.session.reads if use.writer == position[writer].as_py()]
    return Reader(row=opened.rows([row])[0], similarity=max(read), credit=shares.get(one.session.position))
