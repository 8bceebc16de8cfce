"""Reads the ProductQA files of the AGILE release into typed records.

<data>/product_qa.db                     SQLite, a table per category; or agile/product_qa.db beside <data>, as released
<data>/{train,test}/<category>/qa.jsonl        a question a line, in stream order
                               metadata.json   product (asin) -> feature -> value
                               schema.json     feature -> its unit and kind; may be missing
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agile_ray.errors import ConfigError
from envs.rows import LENIENT, MaybeText, Record, Row, Rows, Text, first, read_rows, read_text

FACT, REASONING, SEARCH = "fact", "reasoning", "search"
"""Kinds of question; the files say fact_qa, reasoning_qa, search_qa."""

DATABASE = "product_qa.db"
_SIDES = ("train", "test")


class Hit(Record):
    """A product that answers a search question."""

    asin: Text
    title: Text


class Extra(Record):
    """Further annotations: the knowledge of a reasoning question, the gold queries of a search question."""

    knowledge: MaybeText = None
    sql: MaybeText = None  # finds one product
    answer: MaybeText = None  # finds all products


class AnnotatedQuestion(Row):
    """One line of qa.jsonl: a question with its gold answers."""

    asin: Text  # the product on whose page the question is asked
    question: Text
    long_answer: Text
    # for a search question its hits, possibly none
    short_answer: Text | tuple[Hit, ...]
    type: str
    extra_data: Extra | None

    @property
    def kind(self) -> str:
        return self.type.removesuffix("_qa")

    @property
    def hits(self) -> tuple[Hit, ...]:
        return () if isinstance(self.short_answer, str) else self.short_answer


Products = Mapping[str, Mapping[str, str | None]]
_PRODUCTS = TypeAdapter(dict[str, dict[str, MaybeText]], config=LENIENT)


class _Feature(Record):
    unit: MaybeText = None


_SCHEMA = TypeAdapter(dict[str, _Feature])


@dataclass(frozen=True, kw_only=True)
class Category:
    """The folder of one category; its files are read at first use."""

    folder: Path
    skip_bad: bool = False  # leave out broken questions

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def read(self) -> Rows[AnnotatedQuestion]:
        """All questions in stream order.

        Raises:
            ConfigError: the file or one of its lines does not have the release's format.
        """
        return read_rows(self.folder / "qa.jsonl", AnnotatedQuestion, problem=_problem, skip_bad=self.skip_bad)

    @property
    def questions(self) -> tuple[AnnotatedQuestion, ...]:
        """Those that can be used."""
        return self.read.rows

    @cached_property
    def products(self) -> Products:
        """Product -> feature -> value.

        Raises:
            ConfigError: the file does not have the release's format.
        """
        file = self.folder / "metadata.json"
        try:
            return _PRODUCTS.validate_json(read_text(file))
        except ValidationError as error:
            raise ConfigError(f"{file}: {first(error)}") from error

    @cached_property
    def units(self) -> Mapping[str, str]:
        """Feature -> unit, where there is one.

        Raises:
            ConfigError: the file does not have the release's format.
        """
        file = self.folder / "schema.json"
        if not file.exists():
            return {}
        try:
            schema = _SCHEMA.validate_json(read_text(file))
        except ValidationError as error:
            raise ConfigError(f"{file}: {first(error)}") from error
        return {name: feature.unit for name, feature in schema.items() if feature.unit}


def open_folder(folder: Path | None) -> tuple[Path, Path]:
    """Check that a folder is the ProductQA data, or a clone of the release, and find its database.

    The release keeps the database in agile/ beside data/.

    Returns:
        The folder, and the file of the database.

    Raises:
        ConfigError: it is not; the message says what to download.
    """
    wanted = (
        f"train/<category>/ and test/<category>/, each with qa.jsonl and metadata.json, and {DATABASE}, in the folder "
        "or in agile/ beside it"
    )
    source = "name a clone of the AGILE release (github.com/bytarnish/AGILE), or data/ in it"
    if folder is None:
        raise ConfigError(f"env.data: productqa needs the folder of the ProductQA files; {source}: {wanted}")
    inside = (folder, folder / "data")
    folder = next((one for one in inside if any((one / side).is_dir() for side in _SIDES)), folder)
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
