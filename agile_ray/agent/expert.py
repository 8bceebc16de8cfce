"""The expert: answers a question for a price."""

from dataclasses import dataclass, field
from typing import Protocol, Self

from agile_ray.agent.environment import Question
from agile_ray.errors import ContractError


@dataclass(frozen=True, slots=True, kw_only=True)
class AskKey:
    """Identifies one ask: the same ask, played again, has the same key. Written as `stream#position#number`."""

    stream: str
    position: int  # of the session in its stream
    number: int  # of the ask in its session, from 0
    ask_probability: float | None = field(default=None, compare=False)  # told to the expert, and no part of the key

    def __str__(self) -> str:
        return f"{self.stream}#{self.position}#{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        Raises:
            ContractError: it is not a key.
        """
        try:
            stream, position, number = text.rsplit("#", 2)
            return cls(stream=stream, position=int(position), number=int(number))
        except ValueError as error:
            raise ContractError(f"AskKey: a key reads stream#position#number, found {text!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What an expert says."""

    text: str  # what the policy reads and remembers
    answer: str  # what is submitted if the policy submits advice


class Expert(Protocol):
    """Answers questions. An answer may be wrong or late."""

    @property
    def source(self) -> str: ...  # names the expert on receipts

    @property
    def reliability(self) -> float: ...  # share of its advice that is right, in [0, 1]; only oracles may use it

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """Answer one ask. May block: every call runs in a thread, on an event loop of its own.

        Raises:
            ExpertError: the expert gives no answer.
        """
        ...


class GoldExpert:
    """Simulates an expert who is always right by reading the gold answer, as AGILE does."""

    source = "gold"
    reliability = 1.0

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        del key
        return Advice(text=question.advice, answer=question.answer)
