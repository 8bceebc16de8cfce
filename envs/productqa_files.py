"""Reads the ProductQA files of the AGILE release into typed records.

<data>/product_qa.db                     SQLite, a table per category; or agile/product_qa.db beside <data>, as released
<data>/{train,test}/<category>/qa.jsonl        a question a line, in stream order
                               metadata.json   product (asin) -> feature -> value
"""

import html
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from agile_ray.errors import ConfigError

FACT, REASONING, SEARCH = "fact", "reasoning", "search"
"""Kinds of question; the files say fact_qa, reasoning_qa, search_qa."""

DATABASE = "product_qa.db"
_SIDES = ("train", "test")


_LENIENT = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


def _absent(value: object) -> object:
    """None for NaN and infinities, which Python's json writes for missing numbers."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


_Text = Annotated[str, BeforeValidator(_absent)]
_MaybeText = Annotated[str | None, BeforeValidator(_absent)]


class _Record(BaseModel):
    model_config = _LENIENT


class Hit(_Record):
    """A product that answers a search question."""

    asin: _Text
    title: _Text


class Extra(_Record):
    """Further annotations: the knowledge of a reasoning question, the full gold query of a search question."""

    knowledge: _MaybeText = None
    answer: _MaybeText = None


class AnnotatedQuestion(_Record):
    """One line of qa.jsonl: a question with its gold answers."""

    id: _Text  # unique within its category
    asin: _Text  # the product on whose page the question is asked
    question: _Text
    long_answer: _Text
    # for a search question its hits, possibly none
    short_answer: Annotated[str | tuple[Hit, ...], BeforeValidator(_absent)]
    type: str
    extra_data: Extra | None

    @property
    def kind(self) -> str:
        return self.type.removesuffix("_qa")

    @property
    def hits(self) -> tuple[Hit, ...]:
        return () if isinstance(self.short_answer, str) else self.short_answer


Products = Mapping[str, Mapping[str, str | None]]
_PRODUCTS = TypeAdapter(dict[str, dict[str, _MaybeText]], config=_LENIENT)


@dataclass(frozen=True, kw_only=True)
class Category:
    """The folder of one category; its files are read at first use."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def questions(self) -> tuple[AnnotatedQuestion, ...]:
        """All questions in stream order.

        Raises:
            ConfigError: the file or one of its lines does not have the release's format.
        """
        file = self.folder / "qa.jsonl"
        questions = []
        for number, line in enumerate(_read(file).split("\n"), start=1):
            if not line.strip():
                continue
            try:
                question = AnnotatedQuestion.model_validate_json(line)
            except ValidationError as error:
                raise ConfigError(f"{file}:{number}: {_first(error)}") from error
            problem = _problem(question)
            if problem:
                raise ConfigError(f"{file}:{number}: {problem}")
            questions.append(question)
        repeated = len(questions) - len({question.id for question in questions})
        if repeated or not questions:
            raise ConfigError(
                f"{file}: ids must be unique and at least one; found {len(questions)}, {repeated} repeated"
            )
        return tuple(questions)

    @cached_property
    def products(self) -> Products:
        """Product -> feature -> value.

        Raises:
            ConfigError: the file does not have the release's format.
        """
        file = self.folder / "metadata.json"
        try:
            return _PRODUCTS.validate_json(_read(file))
        except ValidationError as error:
            raise ConfigError(f"{file}: {_first(error)}") from error


def open_folder(folder: Path | None) -> tuple[Path, Path]:
    """Check that a folder is the ProductQA data, and find its database, which the release keeps in agile/ beside data/.

    Returns:
        The folder, and the file of the database.

    Raises:
        ConfigError: it is not; the message says what to download.
    """
    wanted = (
        f"train/<category>/ and test/<category>/, each with qa.jsonl and metadata.json, and {DATABASE}, in the folder "
        "or in agile/ beside it"
    )
    source = "name data/ of a clone of the AGILE release (github.com/bytarnish/AGILE)"
    if folder is None:
        raise ConfigError(f"env.data: productqa needs the folder of the ProductQA files; {source}: {wanted}")
    if not any((folder / side).is_dir() for side in _SIDES):
        raise ConfigError(f"env.data: {folder} has neither train/ nor test/; {source}: {wanted}")
    places = (folder / DATABASE, folder.absolute().parent / "agile" / DATABASE)
    database = next((file for file in places if file.is_file()), None)
    if database is None:
        raise ConfigError(f"env.data: {folder} has no {DATABASE}, nor is there {places[1]}; {source}: {wanted}")
    return folder, database


def known_categories(folder: Path) -> dict[str, Path]:
    """Name -> folder of every category under train/ and test/.

    Raises:
        ConfigError: a category is under both.
    """
    known: dict[str, Path] = {}
    for side in _SIDES:
        for file in sorted((folder / side).glob("*/qa.jsonl"), key=lambda file: file.parent.name):
            name = file.parent.name
            if name in known:
                raise ConfigError(
                    f"env.data: a category is under train/ or test/, found {name} under both in {folder}; remove one"
                )
            known[name] = file.parent
    return known


def clean(text: str) -> str:
    """Unescape HTML entities and join all lines into one."""
    return " ".join(html.unescape(text).split())


def normalised(answer: str) -> str:
    """A short answer in the form that is compared: lower case, single spaces, stripped (AGILE's eval.py)."""
    return re.sub(r"\s+", " ", answer.strip().lower())


def short(text: str, words: int) -> str:
    """The first words of a cleaned text."""
    return " ".join(clean(text).split()[:words])


def majority(questions: Iterable[AnnotatedQuestion], kind: str) -> tuple[str, float] | None:
    """The most common short answer to questions of a kind, the first one in a tie, and its share; None without any."""
    counts: dict[str, int] = {}
    for question in questions:
        if question.kind == kind and isinstance(question.short_answer, str):
            answer = normalised(clean(question.short_answer))
            counts[answer] = counts.get(answer, 0) + 1
    if not counts:
        return None
    best = max(counts, key=counts.__getitem__)
    return best, counts[best] / sum(counts.values())


def _problem(question: AnnotatedQuestion) -> str:
    """Why a question can't be played or judged; "" if it can."""
    listed = not isinstance(question.short_answer, str)
    if question.kind not in (FACT, REASONING, SEARCH) or listed != (question.kind == SEARCH):
        return (
            "a search_qa has a list of products as short_answer, a fact_qa or reasoning_qa a text; "
            f"found type {question.type!r} with {type(question.short_answer).__name__}"
        )
    for name in ("question", "short_answer"):
        text = getattr(question, name)
        if isinstance(text, str) and not _visible(text):
            return f"{name} must hold a text, found {text!r}; complete or remove the line"
    return ""


def _visible(text: str) -> bool:
    return any(letter.isprintable() and not letter.isspace() for letter in html.unescape(text))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # editors on Windows add a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'line'}: {problem['msg']}"
