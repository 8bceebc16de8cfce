"""The expert: answers a question for a price. Every answer that was asked for is paid for with a receipt, once.

The key of an ask is `stream#position#n`: ask n, from 0, of the session at that position of a stream.
"""

from dataclasses import dataclass
from typing import Protocol

from agile_ray.agent.environment import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What an expert says."""

    text: str  # what the policy reads and remembers
    answer: str  # what is submitted if the policy submits advice


class Expert(Protocol):
    """Answers questions, right or wrong, soon or late."""

    @property
    def source(self) -> str: ...  # names it on receipts

    async def advise(self, question: Question, *, key: str) -> Advice:
        """Raise ExpertError if there will be no answer. `key` names the ask."""
        ...


class GoldExpert:
    """Simulates an expert who is always right, by reading the gold answer (as AGILE does)."""

    source = "gold"

    async def advise(self, question: Question, *, key: str) -> Advice:
        del key
        return Advice(text=question.advice, answer=question.answer)
