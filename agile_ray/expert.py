"""The expert: answers a question for a price. Every answer that was asked for is paid for with a receipt."""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from agile_ray.errors import ExpertError
from agile_ray.task import Question
from agile_ray.types import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What an expert says."""

    text: str  # what the policy reads and remembers
    answer: str  # what is submitted if the policy submits advice


class Expert(Protocol):
    """Answers questions, right or wrong, soon or late."""

    @property
    def source(self) -> str: ...  # names it on receipts

    async def advise(self, question: Question) -> Advice:
        """Raise ExpertError if there will be no answer."""
        ...


class GoldExpert:
    """Simulates an expert who is always right, by reading the gold answer (as AGILE does)."""

    source = "gold"

    async def advise(self, question: Question) -> Advice:
        return Advice(text=question.advice, answer=question.answer)


async def ask(expert: Expert, question: Question, *, key: str, price: int, deadline_s: float) -> tuple[Advice, Receipt]:
    """Ask once and pay.

    Args:
        key: idempotency key of this ask.
        price: thousandths.
        deadline_s: longest wait.

    Raises:
        ExpertError: no answer by the deadline; nothing is charged.
    """
    start = time.monotonic()
    try:
        async with asyncio.timeout(deadline_s):
            advice = await expert.advise(question)
    except TimeoutError as error:
        raise ExpertError(f"expert {expert.source}: no answer within agent.expert_s ({deadline_s} s)") from error
    return advice, Receipt(
        key=key,
        price=price,
        source=expert.source,
        latency_s=time.monotonic() - start,
        advice=advice.text,
        answer=advice.answer,
    )
