"""Pays the expert for every answer once, and keeps the receipt."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from typing import Protocol, runtime_checkable

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey, Expert
from agile_ray.agent.threads import in_thread
from agile_ray.errors import ExpertError, described
from agile_ray.plugins.secrets import redacted
from agile_ray.types import Receipt


@runtime_checkable
class Patient(Protocol):
    """What an expert has, in addition, that thousands of sessions wait for at once, such as a person.

    If it is patient, its `advise` never blocks and is awaited on the lanes' own event loop: a wait costs a coroutine,
    not a thread with a loop of its own.
    """

    @property
    def patient(self) -> bool: ...


class PaidExpert:
    """An expert for one lane that is paid once per key, however often the lane is restored.

    It keeps all receipts of its lane, since the lane may be restored to any earlier position: at most `agent.asks` for
    each question of the stream. A lane that is restored to a position plays only from there on, so a checkpoint needs
    no receipt of an earlier position.
    """

    def __init__(
        self,
        expert: Expert,
        *,
        deadline_s: float,
        asks: Callable[[str], None] | None = None,
        bought: Callable[[Receipt], None] | None = None,
    ) -> None:
        """Start without receipts.

        Args:
            expert: answers the questions.
            deadline_s: longest wait for one answer.
            asks: called with the key of every new purchase, before the expert is asked. A key without a receipt may
                have been paid for; it is asked again under the same key.
            bought: called with the receipt of every new purchase, before the answer is used.
        """
        self._expert = expert
        self._deadline_s = deadline_s
        self._asks = asks
        self._bought = bought
        self._receipts: dict[int, dict[AskKey, Receipt]] = {}  # by position

    @property
    def reliability(self) -> float:
        """Share of the expert's advice that is right."""
        return self._expert.reliability

    def told(self, position: int) -> Advice | None:
        """What the expert said last at a position; None: it was not asked there."""
        said = {key.number: receipt for key, receipt in self._receipts.get(position, {}).items()}
        return Advice(text=said[max(said)].advice, answer=said[max(said)].answer) if said else None

    async def ask(self, question: Question, *, key: AskKey, price: int) -> Receipt:
        """Return the receipt of this ask; ask and pay the expert only if there is none yet.

        Args:
            question: what is asked.
            key: identifies the ask.
            price: thousandths.

        Raises:
            ExpertError: the expert broke in any way, or did not answer by the deadline; nothing is charged.
        """
        bought = self._receipts.setdefault(key.position, {})
        if key not in bought:
            if self._asks is not None:
                self._asks(str(key))
            receipt = await self._buy(question, key=key, price=price)
            if self._bought is not None:
                self._bought(receipt)
            bought[key] = receipt
        return bought[key]

    async def _buy(self, question: Question, *, key: AskKey, price: int) -> Receipt:
        start = time.monotonic()
        advice = await self._advice(question, key)
        return Receipt(
            key=str(key),
            price=price,
            source=self._expert.source,
            latency_s=time.monotonic() - start,
            advice=redacted(advice.text),
            answer=redacted(advice.answer),
        )

    async def _advice(self, question: Question, key: AskKey) -> Advice:
        """Run the expert on an event loop of its own in a thread, since its code may block; a patient one on this loop.

        The deadline is set twice: there it cancels the expert's coroutine, and here it ends the wait even if the
        coroutine blocks.
        """
        name = f"expert {self._expert.source}"
        late = f"{name}: no answer within agent.expert_s ({self._deadline_s} s)"

        async def advised() -> Advice:
            deadline = asyncio.timeout(self._deadline_s)
            try:
                async with deadline:
                    advice = await self._expert.advise(question, key=key)
            except ExpertError:
                raise
            except (Exception, asyncio.CancelledError) as error:  # whatever it raises, only its own session ends
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise  # the session itself is cancelled
                raise ExpertError(late if deadline.expired() else f"{name}: {described(error)}") from error
            if not isinstance(advice, Advice) or not isinstance(advice.text, str) or not isinstance(advice.answer, str):
                raise ExpertError(f"{name}: advise() must return an Advice of two texts, found {advice!r}")
            return advice

        if isinstance(self._expert, Patient) and self._expert.patient:
            return await advised()
        try:
            return await in_thread(lambda: asyncio.run(advised()), deadline_s=self._deadline_s)
        except TimeoutError as error:
            raise ExpertError(late) from error

    def since(self, position: int) -> tuple[Receipt, ...]:
        """Receipts of this position and later ones."""
        later = (bought for asked, bought in self._receipts.items() if asked >= position)
        return tuple(receipt for bought in later for receipt in bought.values())

    def unused(self, position: int, used: Collection[Receipt]) -> tuple[Receipt, ...]:
        """Receipts of this position that are not among `used`: an earlier attempt at the session bought more."""
        return tuple(receipt for receipt in self._receipts.get(position, {}).values() if receipt not in used)

    def add(self, receipts: Iterable[Receipt]) -> None:
        """Take over receipts from a checkpoint, or of earlier attempts."""
        for receipt in receipts:
            key = AskKey.parse(receipt.key)
            self._receipts.setdefault(key.position, {})[key] = receipt
