"""What an inbox and those who ask it tell each other, and one line of its export."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field, TypeAdapter

LONGEST = 20_000
"""Characters of the longest text of an ask or of an answer."""


def shortened(text: str) -> str:
    """The text of an ask, as an inbox and its export hold it."""
    return text[:LONGEST]


class State(StrEnum):
    """Where an ask is. An ask that is closed stays as it is."""

    OPEN = "open"
    ANSWERED = "answered"
    REFUSED = "refused"  # the person does not want to answer
    UNKNOWN = "unknown"  # the person does not know the answer
    LATE = "late"  # nobody answered by the deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question for a person. It holds no gold answer."""

    key: str  # `stream#position#number`; the same key is the same ask
    stream: str
    question_id: str
    kind: str
    topic: str
    text: str  # the user's words
    context: str = ""  # what the agent saw
    ask_probability: Annotated[float, Field(ge=0, le=1)] | None = None  # that the policy gave to asking, if known
    words: str = ""  # what the agent wants to know; "" if it does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an inbox says of an ask. The texts are empty unless it is answered."""

    state: State
    text: str = ""  # what the policy reads
    answer: str = ""  # what is submitted if the policy submits advice


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An ask with what became of it: one line of an export."""

    ask: Ask
    told: Told
    by: str  # who closed it, as they name themselves; "" if nobody did
    asked_s: float  # seconds since 1970
    closed_s: float | None  # the same; None: it is open


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """An ask on its way to the inbox."""

    ask: Ask
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # after the first time that the ask was posted
    line: str = ""  # that waits for the answer; "": none does


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """A line asks for what has become of its asks."""

    line: str  # its name
    wait_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]  # how long the reply may wait for one to be closed
    read: int = 0  # the number of the last reply that it has read


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What an inbox tells a line."""

    known: bool  # False: the inbox begins to keep the line, which must post its asks again
    number: int = 0  # of this reply; it grows with each ask that is closed
    told: dict[str, Told] = field(default_factory=dict[str, Told])  # of closed asks that it has not read, by key


ASK, TOLD, RECORD, POSTED = TypeAdapter(Ask), TypeAdapter(Told), TypeAdapter(Record), TypeAdapter(Posted)
WAITS, CLOSED = TypeAdapter(Waits), TypeAdapter(Closed)
