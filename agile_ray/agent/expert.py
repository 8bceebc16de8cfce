"""The expert: answers a question for a price. There may be a second one, the colleague, at another price."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self, runtime_checkable

from agile_ray.agent.environment import Question
from agile_ray.errors import ContractError
from agile_ray.types import Outcome

COLLEAGUE = "colleague"
"""Whom [AskColleague] asks, in the keys of asks. [SeekAdvice] asks "", the expert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskKey:
    """Identifies one ask: the same ask, played again, has the same key.

    Written as `stream#position#number`, for the colleague as `stream#position#number@colleague`.
    """

    stream: str
    position: int  # of the session in its stream
    number: int  # of the asks of this expert in its session, from 0
    to: str = ""  # the expert, or COLLEAGUE
    # Told to the expert, and no part of the key:
    ask_probability: float | None = field(default=None, compare=False)  # that the policy gave to asking, if known
    words: str = field(default="", compare=False)  # what the agent wants to know; "" if it does not say

    def __str__(self) -> str:
        return f"{self.stream}#{self.position}#{self.number}{'@' if self.to else ''}{self.to}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        Raises:
            ContractError: it is not a key.
        """
        try:
            stream, position, last = text.rsplit("#", 2)
            number, _, to = last.partition("@")
            return cls(stream=stream, position=int(position), number=int(number), to=to)
        except ValueError as error:
            raise ContractError(f"AskKey: a key reads stream#position#number, found {text!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What an expert says."""

    text: str  # what the policy reads and remembers
    answer: str  # what is submitted if the policy submits advice
    outcome: Outcome = Outcome.ANSWERED  # of any other, the texts are not used

    @classmethod
    def none(cls, outcome: Outcome) -> Self:
        """No advice, because of this outcome."""
        return cls(text="", answer="", outcome=outcome)


class Expert(Protocol):
    """Answers questions. An answer may be wrong or late."""

    @property
    def source(self) -> str: ...  # names the expert on receipts

    @property
    def reliability(self) -> float: ...  # share of its advice that is right, in [0, 1]; only oracles may use it

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """Answer one ask, or say with `Advice.none` why not.

        May block, unless the expert is `Patient`: every call runs in a thread, on an event loop of its own, at the same
        time as others.

        Raises:
            ExpertError: the expert broke.
            TurnedAwayError: it would refuse every ask, so the run ends.
        """
        ...


@runtime_checkable
class Patient(Protocol):
    """What an expert has, in addition, that thousands of sessions wait for at once, such as a person.

    If it is patient, its `advise` never blocks and is awaited on the lanes' own event loop: a wait costs a coroutine,
    not a thread with a loop of its own.
    """

    @property
    def patient(self) -> bool: ...


class Panel:
    """An expert and a colleague: who is asked stands in the key of the ask."""

    def __init__(self, experts: Mapping[str, Expert]) -> None:
        """Combine experts by `AskKey.to`; "" is one of them."""
        self.experts = experts
        self.source = experts[""].source
        self.reliability = experts[""].reliability

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        return await self.experts[key.to].advise(question, key=key)


def source_of(expert: Expert, *, to: str) -> str:
    """The name of an expert, or of one of a panel."""
    return _asked(expert, to=to).source


def reliability_of(expert: Expert, *, to: str) -> float:
    """Share of advice that is right, of an expert or of one of a panel."""
    return _asked(expert, to=to).reliability


def is_patient(expert: Expert, *, to: str) -> bool:
    """Whether an expert, or the one of a panel, is waited for on the lanes' event loop."""
    asked = _asked(expert, to=to)
    return isinstance(asked, Patient) and asked.patient


def _asked(expert: Expert, *, to: str) -> Expert:
    return expert.experts[to] if isinstance(expert, Panel) else expert


class GoldExpert:
    """Simulates an expert who is always right by reading the gold answer, as AGILE does."""

    source = "gold"
    reliability = 1.0

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        del key
        return Advice(text=question.advice, answer=question.answer)
