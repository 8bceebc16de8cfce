"""Pays the expert for every answer once, and keeps the receipt."""

import asyncio
import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey, Expert, is_patient, reliability_of, source_of
from agile_ray.agent.functions import Function
from agile_ray.agent.threads import in_thread
from agile_ray.errors import ExpertError, TurnedAwayError, described
from agile_ray.plugins.secrets import redacted
from agile_ray.prices import Prices
from agile_ray.types import Outcome, Receipt

BRACKETED = re.compile(rf"\[+({'|'.join(function.value.strip('[]') for function in Function)})\]+")
"""A function in a text, also within further brackets, which would show it once the inner ones are gone."""

FAULTS = frozenset({Outcome.LATE, Outcome.BROKEN})
"""What comes of an ask that the expert should have answered."""


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
            bought: called with the receipt of every new purchase, before the answer is used; not of an ask that is
                late or broken, so a resumed run asks again once the expert is mended.
        """
        self._expert = expert
        self._deadline_s = deadline_s
        self._asks = asks
        self._bought = bought
        self._receipts: dict[int, dict[AskKey, Receipt]] = {}  # by position
        self._told: dict[int, Advice] = {}  # the last answer, by position

    def reliability(self, to: str = "") -> float:
        """Share of an expert's advice that is right."""
        return reliability_of(self._expert, to=to)

    def told(self, position: int) -> Advice | None:
        """What was answered last at a position; None: nothing was."""
        return self._told.get(position)

    async def ask(
        self,
        question: Question,
        *,
        key: AskKey,
        price: int,
        prices: Prices | None = None,
        count: Callable[[str], int] = len,
    ) -> Receipt:
        """Return the receipt of this ask; ask and pay the expert only if there is none yet, in whatever words.

        Args:
            question: what is asked.
            key: identifies the ask, and has its words.
            price: that the agent was told, thousandths.
            prices: what follows from it; None: the price is paid for an answer, and nothing for none.
            count: number of tokens of a text, for prices by tokens.

        Raises:
            ExpertError: the expert broke in any way, or did not answer by the deadline, and the agent does not go on
                alone; nothing is charged.
            TurnedAwayError: the expert's endpoint would refuse every ask.
        """
        bought = self._receipts.setdefault(key.position, {})
        if key not in bought:
            if self._asks is not None:
                self._asks(str(key))
            receipt = await self._buy(question, key, price, prices or Prices(amounts=(price,)), count)
            if self._bought is not None and receipt.outcome not in FAULTS:
                self._bought(receipt)
            bought[key] = receipt
        self._tell(bought[key])
        return bought[key]

    def _tell(self, receipt: Receipt) -> None:
        if receipt.outcome is Outcome.ANSWERED:
            advice = Advice(text=receipt.advice, answer=receipt.answer)
            self._told[AskKey.parse(receipt.key).position] = advice

    async def _buy(
        self, question: Question, key: AskKey, price: int, prices: Prices, count: Callable[[str], int]
    ) -> Receipt:
        start, fault = time.monotonic(), ""
        key = replace(key, words=_plain(key.words))
        try:
            advice = await self._advice(question, key)
        except ExpertError as error:
            if not prices.alone:
                raise
            advice = Advice.none(Outcome.LATE if error.late else Outcome.BROKEN)
            away = error.late and is_patient(self._expert, to=key.to)  # people who do not answer are no fault
            fault = "" if away else redacted(str(error))
        answered = advice.outcome is Outcome.ANSWERED
        text, answer = (_plain(said) if answered else "" for said in (advice.text, advice.answer))
        tokens = sum(map(count, (question.text, key.words, text))) if prices.rule.token else 0
        return Receipt(
            key=str(key),
            price=prices.due(price, outcome=advice.outcome, stream=key.stream, tokens=tokens),
            source=source_of(self._expert, to=key.to),
            latency_s=time.monotonic() - start,
            advice=text,
            answer=answer,
            rule=prices.rule.name,
            outcome=advice.outcome,
            words=key.words,
            fault=fault,
        )

    async def _advice(self, question: Question, key: AskKey) -> Advice:
        """Run the expert on an event loop of its own in a thread, since its code may block; a patient one on this loop.

        The deadline is set twice: there it cancels the expert's coroutine, and here it ends the wait even if the
        coroutine blocks.
        """
        name = f"expert {source_of(self._expert, to=key.to)}"
        late = f"{name}: no answer within agent.expert_s ({self._deadline_s} s)"

        async def advised() -> Advice:
            deadline = asyncio.timeout(self._deadline_s)
            try:
                async with deadline:
                    advice = await self._expert.advise(question, key=key)
            except (ExpertError, TurnedAwayError):
                raise
            except (Exception, asyncio.CancelledError) as error:  # whatever it raises, only its own session ends
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise  # the session itself is cancelled
                is_late = deadline.expired()
                raise ExpertError(late if is_late else f"{name}: {described(error)}", late=is_late) from error
            if not isinstance(advice, Advice) or not isinstance(advice.text, str) or not isinstance(advice.answer, str):
                raise ExpertError(f"{name}: advise() must return an Advice of two texts, found {advice!r}")
            return advice

        if is_patient(self._expert, to=key.to):
            return await advised()
        try:
            return await in_thread(lambda: asyncio.run(advised()), deadline_s=self._deadline_s)
        except TimeoutError as error:
            raise ExpertError(late, late=True) from error

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
            self._tell(receipt)


def _plain(said: str) -> str:
    """What the policy and the expert may read of each other: no secrets, and no functions, which transcripts show."""
    return BRACKETED.sub(r"\1", redacted(said))
