"""Questions and answers from one file, by the config alone: CSV, JSON lines, a JSON list, or Parquet.

    env: {name: dataset, data: questions.csv}

A row needs `text` and `answer`. It may have every other field of a question (agile_ray/agent/environment.py) that is a
text or a number, `id`, and `split`: imitation, train, validation or test. `env.columns` names columns that are called
otherwise. Without a column `split`, a fifth of the items each is for validation and for test; rows of one item stay
together. Without rows for imitation, it plays those of `train`. A row without a guess gets the commonest training
answer of its kind, with its share there as the probability.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from agile_ray.agent.environment import Question
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.seeds import derive
from envs.dataset.judges import exact
from envs.one_stream import OneStream
from envs.rows import Row, Text, commonest, read_rows

HELD_OUT = 5  # one of so many items is for validation, one for test
ENDINGS = (".csv", ".jsonl", ".json", ".parquet")
SPLITS = ("imitation", "train", "validation", "test")


class DataRow(Row):
    """One row of the file; "" or None: the question has the field's default."""

    text: Text
    answer: Text
    product: Text = ""
    kind: Text = "question"
    topic: Text = ""
    shown: Text = ""
    item: Text = ""
    advice: Text = ""
    knowledge: Text = ""
    query: Text = ""
    wrong_query: Text = ""
    guess: Text = ""
    guess_probability: float | None = Field(default=None, ge=0, le=1)
    split: Literal["imitation", "train", "validation", "test"] | None = None


def build(env: Env, *, seed: int) -> OneStream:
    """Build from the config. Questions and their order come from the file and do not depend on the seed.

    Raises:
        ConfigError: there is no such file, it has a broken row or too few, or a key is wrong.
    """
    del seed
    if env.data is None or not env.data.is_file() or env.data.suffix not in ENDINGS:
        missing = env.data is not None and not env.data.exists()
        raise ConfigError(
            f"env.data: dataset needs a file of questions ({', '.join(ENDINGS)}), found {env.data}"
            f"{', which does not exist' if missing else ''}"
        )
    if env.categories:
        raise ConfigError(f"env.categories: dataset has none, found {dict(env.categories)}; use a column `split`")
    columns = _columns(env)

    def renamed(number: int, record: Mapping[str, object]) -> dict[str, object]:
        lacking = [column for column in (columns["text"], columns["answer"]) if column not in record]
        if lacking:
            raise ValueError(
                f"{lacking[0]}: a row needs this column, found {', '.join(record)}; name the columns of text and "
                "answer by env.columns"
            )
        given = {field: record[column] for field, column in columns.items() if record.get(column) not in (None, "")}
        return {"id": str(number), "text": "", "answer": ""} | given

    rows = read_rows(env.data, DataRow, problem=_problem, skip_bad=env.skip_bad, prepare=renamed)
    splits = _splits(rows.rows, file=str(env.data))
    guesses = commonest((row.kind, row.answer) for row in splits["train"])
    return OneStream(
        "dataset",
        splits={split: tuple(_question(row, guesses) for row in chosen) for split, chosen in splits.items()},
        judge=exact,
        skipped=rows.broken,
    )


def _columns(env: Env) -> dict[str, str]:
    """Field -> its column."""
    fields = tuple(DataRow.model_fields)
    given = env.columns if isinstance(env.columns, Mapping) else {}
    for field in given:
        if field not in fields:
            near = difflib.get_close_matches(field, fields, n=1)
            raise ConfigError(
                f"env.columns: the fields are {', '.join(fields)}; found {field}"
                f"{f'; did you mean {near[0]}?' if near else ''}"
            )
    return {field: given.get(field, field) for field in fields}


def _problem(row: DataRow) -> str:
    for name in ("text", "answer"):
        if not getattr(row, name).strip():
            return f"{name}: must hold a text, found {getattr(row, name)!r}"
    if row.guess_probability is not None and not row.guess:
        return "guess_probability: is that of `guess`, found none"
    return ""


def _splits(rows: Sequence[DataRow], *, file: str) -> dict[str, Sequence[DataRow]]:
    """The rows of each split, in file order."""
    if any(row.split for row in rows):
        found = {split: [row for row in rows if (row.split or "train") == split] for split in SPLITS}
    else:
        items = sorted({_item(row) for row in rows}, key=lambda item: derive(0, "dataset", item))
        share = max(1, len(items) // HELD_OUT)
        held = {"validation": set(items[:share]), "test": set(items[share : 2 * share])}
        found = {split: [row for row in rows if _item(row) in held[split]] for split in held}
        found["train"] = [row for row in rows if not any(_item(row) in items for items in held.values())]
        found["imitation"] = []
    found["imitation"] = found["imitation"] or found["train"]
    empty = [split for split in SPLITS if not found[split]]
    if empty and not any(row.split for row in rows):
        raise ConfigError(
            f"env.data: {file} must have three items or more, one each for train, validation and test, found "
            f"{len(set(map(_item, rows)))}; add rows, or set the splits in a column `split`"
        )
    if empty:
        raise ConfigError(
            f"env.data: {file} must have questions for every split, found none for {', '.join(empty)} in its column "
            "`split`; add rows"
        )
    return {split: found[split] for split in SPLITS}


def _item(row: DataRow) -> str:
    return row.item or row.text


def _question(row: DataRow, guesses: Mapping[str, tuple[str, float]]) -> Question:
    guess, probability = guesses.get(row.kind, ("", 0.0))
    if row.guess:
        guess, probability = row.guess, row.guess_probability or 0.0
    given = row.model_dump(exclude={"split", "guess", "guess_probability"})
    return Question(**given, guess=guess, guess_probability=probability)
