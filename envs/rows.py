"""Reads the rows of a data file and the texts in them, and says by file and line which rows are broken.

A file has a JSON object a line, or is one JSON list of them, as HotpotQA's own files are. Files that end in .csv have
a head line; .parquet is read, too.
"""

import csv
import html
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from agile_ray.errors import ConfigError

OTHER_SEPARATORS = (";", "\t", "|")
"""What stands between columns in files that are nearly CSV."""
LENIENT = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


def _absent(value: object) -> object:
    """None for NaN and infinities, which Python's json writes for missing numbers."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Text = Annotated[str, BeforeValidator(_absent)]
MaybeText = Annotated[str | None, BeforeValidator(_absent)]


class Record(BaseModel):
    """A part of a row."""

    model_config = LENIENT


class Row(Record):
    """A row, with an id that no other row of its file has."""

    id: Text


R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Generic[R]):
    """What a file holds."""

    rows: tuple[R, ...]  # in file order
    broken: tuple[str, ...]  # what is wrong with each row that was left out, with file and line


Prepare = Callable[[int, Mapping[str, object]], Mapping[str, object]]
"""From the number of a row, from 1, and its columns to the fields of its kind; a ValueError says what is wrong."""


def read_rows(
    file: Path, kind: type[R], *, problem: Callable[[R], str], skip_bad: bool, prepare: Prepare | None = None
) -> Rows[R]:
    """Read a file.

    Args:
        file: to read.
        kind: of its rows.
        problem: why a row can't be used; "" if it can.
        skip_bad: leave broken rows out; otherwise the first one is an error.
        prepare: renames columns; None: they are the fields.

    Raises:
        ConfigError: the file can't be read, has no row that can be used, or has a broken one.
    """
    rows: dict[str, R] = {}
    broken: list[str] = []
    for number, (place, text) in enumerate(_texts(file), start=1):
        try:
            row = kind.model_validate_json(text if prepare is None else _prepared(number, text, prepare))
            wrong = problem(row) or (f"id: no two rows may have the same, found {row.id!r} again" * (row.id in rows))
        except ValidationError as error:
            row, wrong = None, first(error)
        except ValueError as error:
            row, wrong = None, str(error)
        if wrong and not skip_bad:
            raise ConfigError(f"{place}: {wrong}; mend or remove the row, or set env.skip_bad=true")
        if wrong:
            broken.append(f"{place}: {wrong}")
        elif row is not None:
            rows[row.id] = row
    if not rows:
        found = f"{len(broken)} broken ones, such as {broken[0]}" if broken else "none"
        raise ConfigError(f"{file}: there must be at least one row that can be used, found {found}")
    return Rows(rows=tuple(rows.values()), broken=tuple(broken))


def read_splits(
    folder: Path | None,
    kind: type[R],
    files: Mapping[str, Sequence[str]],
    *,
    needed: Collection[str],
    of: str,
    source: str,
    problem: Callable[[R], str],
    skip_bad: bool,
) -> dict[str, Rows[R]]:
    """Read the file of each split; one that is not needed may be missing.

    Args:
        folder: of the files; None: env.data is not set.
        kind: of the rows.
        files: names that the file of each split may have, the first one that exists.
        needed: splits that must have one.
        of: name of the environment, for errors.
        source: what to get and name; for errors.
        problem: as of `read_rows`.
        skip_bad: as of `read_rows`.

    Raises:
        ConfigError: a needed file is missing; the message says what to get. Or a file has a broken row.
    """
    if folder is None:
        raise ConfigError(f"env.data: {of} needs the folder of its files; {source}")
    found = {split: [folder / name for name in names if (folder / name).is_file()] for split, names in files.items()}
    for split in needed:
        if not found[split]:
            raise ConfigError(f"env.data: {folder} has none of {', '.join(files[split])}; {source}")
    return {
        split: read_rows(there[0], kind, problem=problem, skip_bad=skip_bad) for split, there in found.items() if there
    }


def _prepared(number: int, text: str, prepare: Prepare) -> str:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"a row is an object with columns, found {text[:40]}")
    return json.dumps(prepare(number, record))


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    """Where each row is, and its text."""
    if file.suffix == ".parquet":
        yield from _parquet(file)
        return
    text = read_text(file)
    if file.suffix == ".csv":
        yield from _csv(file, text)
        return
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{file}: must be JSON: {error}") from error
        yield from ((f"{file}: row {number}", json.dumps(row)) for number, row in enumerate(listed, start=1))
    else:
        lines = enumerate(text.split("\n"), start=1)
        yield from ((f"{file}:{number}", line) for number, line in lines if line.strip())


def _csv(file: Path, text: str) -> Iterator[tuple[str, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        heads = next(reader, [])
        _check_heads(file, heads)
        for cells in reader:
            if len(cells) > len(heads):
                raise ConfigError(
                    f"{file}:{reader.line_num}: a row has a cell for each of the {len(heads)} columns, found "
                    f"{len(cells)} cells; put a cell with a comma in double quotes"
                )
            if cells:
                yield f"{file}:{reader.line_num}", json.dumps(dict(zip_longest(heads, cells, fillvalue="")))
    except csv.Error as error:
        raise ConfigError(f"{file}:{reader.line_num}: must be CSV: {error}") from error


def _check_heads(file: Path, heads: Sequence[str]) -> None:
    twice = [head for head, times in Counter(heads).items() if head and times > 1]  # spreadsheets add empty ones
    if twice:
        raise ConfigError(f"{file}:1: each column has a name of its own, found {twice[0]!r} twice; rename one")
    other = [sign for sign in OTHER_SEPARATORS if len(heads) == 1 and sign in heads[0]]
    if other:
        raise ConfigError(f"{file}:1: columns are separated by commas, found {heads[0]!r}; save it with commas")


def _parquet(file: Path) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{file}: row {number}", json.dumps(row, default=str)


def read_text(file: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        return file.read_text(encoding="utf-8-sig")  # editors on Windows add a byte-order mark
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: must be text in UTF-8, found {error}; save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error


def first(error: ValidationError) -> str:
    """The first problem that pydantic found, in one line."""
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'line'}: {problem['msg']}"


def clean(text: str) -> str:
    """Unescape HTML entities and join all lines into one."""
    return " ".join(html.unescape(text).split())


def normalised(answer: str) -> str:
    """A short answer in the form that is compared: lower case, single spaces, stripped (AGILE's eval.py)."""
    return re.sub(r"\s+", " ", answer.strip().lower())


def short(text: str, words: int) -> str:
    """The first words of a cleaned text."""
    return " ".join(clean(text).split()[:words])


def commonest(labelled: Iterable[tuple[str, str]]) -> dict[str, tuple[str, float]]:
    """Label -> its most common answer, the first one in a tie, and that answer's share.

    Args:
        labelled: pairs of a label and an answer.
    """
    counts: dict[str, Counter[str]] = {}
    for label, answer in labelled:
        counts.setdefault(label, Counter())[answer] += 1
    best = {label: answers.most_common(1)[0] for label, answers in counts.items()}
    return {label: (answer, times / counts[label].total()) for label, (answer, times) in best.items()}
