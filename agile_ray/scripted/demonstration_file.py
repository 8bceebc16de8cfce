"""Files of demonstrations: one session a line, as functions, words and replies; no token ids, so any model learns them.

    {"stream": 1000000, "question": "0", "calls": [
        {"call": "[GetQuestion]", "reply": "progress 0 questions 0 knowledge 0 does it rust ?"},
        {"call": "[RetrieveMemory]", "reply": "history : none knowledge : none"},
        {"call": "[SeekAdvice]", "reply": "advice : yes"},
        {"call": "[Reflection]", "words": "steel rusts"},
        {"call": "[UpdateMemory]"}, {"call": "[SubmitAnswer]"}, {"call": "[ClearContext]"}]}

The sessions of a stream are played in the order of the file: a later one finds in memory what earlier ones wrote.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agile_ray.agent.functions import ASKS, SEARCHES, Function
from agile_ray.config import Imitation
from agile_ray.errors import ConfigError

WORDS_FOLLOW = frozenset({*SEARCHES, *ASKS, Function.PREDICT_ANSWER, Function.REFLECTION})
"""Functions that words follow; those that ask, where asks carry words."""
REPLY_FOLLOWS = frozenset({*SEARCHES, Function.GET_QUESTION, Function.RETRIEVE_MEMORY, *ASKS})
"""Functions that are answered."""
SHOWN_CHARACTERS = 60
"""Length to which a reason cuts the value that was found."""

_FORM = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Call(BaseModel):
    """A function that the agent calls."""

    model_config = _FORM

    call: Function
    """The function, such as [SeekAdvice]."""
    words: str | None = None
    """What the agent writes after it: a query, an answer, a reflection, what it wants to know."""
    reply: str | None = None
    """What it read, as recorded; blanks count as one. A session in which it would read something else is refused. Left
    out: any reply will do."""

    @model_validator(mode="after")
    def _has_what_its_function_takes(self) -> Self:
        if self.words is not None and self.call not in WORDS_FOLLOW:
            raise ValueError(f"no words follow {self.call.value}, found {self.words!r}")
        if self.reply is not None and self.call not in REPLY_FOLLOWS:
            raise ValueError(f"nothing replies to {self.call.value}, found {self.reply!r}")
        return self


class Row(BaseModel):
    """A session. Its memory is what earlier sessions of its stream wrote."""

    model_config = _FORM

    stream: int = Field(ge=0)
    """Index of the stream in the split that imitation plays."""
    question: str
    """The question's id."""
    calls: tuple[Call, ...]
    """What the agent does, up to [ClearContext]."""
    right: bool = True
    """What the judge says of the answer. A session that it judges otherwise is refused."""
    learn: bool = True
    """False: the session only fills memory for later ones."""

    @model_validator(mode="after")
    def _ends_with_a_clear_context(self) -> Self:
        ends = [number for number, one in enumerate(self.calls) if one.call is Function.CLEAR_CONTEXT]
        if ends != [len(self.calls) - 1]:
            raise ValueError(f"{Function.CLEAR_CONTEXT.value} is the last call, and called once, found it {_at(ends)}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A line that can't be learned."""

    line: int  # from 1
    reason: str  # what differs from session to session comes after a semicolon


def read(file: Path) -> Iterator[tuple[int, Row | Refused]]:
    """Yield every line that is not blank: its number, from 1, and the row, or why it is none.

    Raises:
        ConfigError: the file can't be read.
    """
    for number, line in _lines(file):
        try:
            yield number, Row.model_validate_json(line)
        except ValidationError as error:
            yield number, Refused(line=number, reason=f"not a demonstration; {_first(error)}")


def written(rows: Iterable[Row]) -> str:
    """The lines of some rows."""
    return "".join(f"{row.model_dump_json(exclude_defaults=True)}\n" for row in rows)


def sessions_of(imitation: Imitation) -> int:
    """Sessions that imitation plays: those of the scripted teacher, or the lines of the file.

    Raises:
        ConfigError: the file can't be read.
    """
    file = imitation.demonstrations
    return imitation.played if file is None else sum(1 for _ in _lines(file))


def _lines(file: Path) -> list[tuple[int, bytes]]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"imitation.sessions: a number, or a file of demonstrations that can be read, found {file} "
            f"({error.strerror})"
        ) from error
    return [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]


def _first(error: ValidationError) -> str:
    """The first problem that pydantic found, in one line."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    said = problem["msg"].removeprefix("Value error, ")
    found = repr(problem["input"])
    if problem["type"] in ("value_error", "json_invalid", "missing"):
        found = ""  # the message has it
    elif len(found) > SHOWN_CHARACTERS:
        found = f"{found[:SHOWN_CHARACTERS]}..."
    return f"{where}{': ' if where else ''}{said}{f', found {found}' if found else ''}"


def _at(places: list[int]) -> str:
    return "nowhere" if not places else f"at {', '.join(str(place) for place in places)}"
