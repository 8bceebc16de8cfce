"""Pays the expert for every answer, once, with a receipt."""

import asyncio
import time
from collections.abc import Collection, Iterable

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Expert
from agile_ray.errors import ExpertError
from agile_ray.record.receipts import Journal
from agile_ray.types import Receipt


class Till:
    """Pays for what one lane asks, once for each key, however often the lane is put back and plays on.

    It keeps every receipt of its lane, because nobody knows how far back the lane will be put: at most `agent.asks` for
    each question of one stream. A lane that is put back to a position plays only what comes from there on, so a
    checkpoint needs no receipt of an earlier position.
    """

    def __init__(self, expert: Expert, *, deadline_s: float, journal: Journal | None = None) -> None:
        """Open a till with nothing in it.

        Args:
            deadline_s: longest wait for one answer.
            journal: is told of every purchase; None where nothing is booked, as in evaluations.
        """
        self._expert = expert
        self._deadline_s = deadline_s
        self._journal = journal
        self._receipts: dict[str, Receipt] = {}

    async def ask(self, question: Question, *, key: str, price: int) -> Receipt:
        """The receipt of this ask; the expert is asked only if there is none yet.

        Raises:
            ExpertError: no answer, or none by the deadline; nothing is charged.
        """
        if key not in self._receipts:
            receipt = await ask(self._expert, question, key=key, price=price, deadline_s=self._deadline_s)
            if self._journal is not None:
                self._journal.add(receipt)
            self._receipts[key] = receipt
        return self._receipts[key]

    def since(self, position: int) -> tuple[Receipt, ...]:
        """Receipts of this position and later ones."""
        return tuple(receipt for key, receipt in self._receipts.items() if _position(key) >= position)

    def unused(self, position: int, used: Collection[Receipt]) -> tuple[Receipt, ...]:
        """Receipts of this position that a session there did not use: an earlier attempt at it bought more."""
        return tuple(
            receipt for key, receipt in self._receipts.items() if _position(key) == position and receipt not in used
        )

    def add(self, receipts: Iterable[Receipt]) -> None:
        """Take over what was paid elsewhere."""
        self._receipts |= {receipt.key: receipt for receipt in receipts}


async def ask(expert: Expert, question: Question, *, key: str, price: int, deadline_s: float) -> Receipt:
    """Ask once and pay.

    Args:
        key: idempotency key of this ask.
        price: thousandths.
        deadline_s: longest wait.

    Raises:
        ExpertError: no answer, or none by the deadline; nothing is charged.
    """
    start = time.monotonic()
    try:
        async with asyncio.timeout(deadline_s):
            advice = await expert.advise(question, key=key)
    except TimeoutError as error:
        raise ExpertError(f"expert {expert.source}: no answer within agent.expert_s ({deadline_s} s)") from error
    return Receipt(
        key=key,
        price=price,
        source=expert.source,
        latency_s=time.monotonic() - start,
        advice=advice.text,
        answer=advice.answer,
    )


def _position(key: str) -> int:
    return int(key.rsplit("#", 2)[1])
