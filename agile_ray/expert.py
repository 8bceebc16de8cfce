"""The expert: answers a question for a price. Every answer that was asked for is paid for with a receipt, once.

The key of an ask is `stream#position#n`: ask n, from 0, of the session at that position of a stream.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agile_ray import store
from agile_ray.config import Env
from agile_ray.errors import ConfigError, ExpertError
from agile_ray.journal import Journal
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

    async def advise(self, question: Question, *, key: str) -> Advice:
        """Raise ExpertError if there will be no answer. `key` names the ask."""
        ...


class GoldExpert:
    """Simulates an expert who is always right, by reading the gold answer (as AGILE does)."""

    source = "gold"

    async def advise(self, question: Question, *, key: str) -> Advice:
        del key
        return Advice(text=question.advice, answer=question.answer)


class RecordedExpert:
    """Says what a past run's expert said about the same session, and knows nothing else."""

    source = "recorded"

    def __init__(self, run: Path) -> None:
        """Read a run's receipts: of all that it trained on, and of its final evaluations.

        Raises:
            ConfigError: the folder holds no segments, or another version's.
        """
        self._run = run
        self._said: dict[str, Advice] = {}
        for receipt in _recorded(run):
            advice = Advice(text=receipt.advice, answer=receipt.answer)
            self._said.setdefault(receipt.key, advice)
            self._said.setdefault(_place(receipt.key), advice)

    async def advise(self, question: Question, *, key: str) -> Advice:
        """The answer to this very ask, else to the first ask of the same session.

        Raises:
            ExpertError: the run has no receipt of that session.
        """
        advice = self._said.get(key) or self._said.get(_place(key))
        if advice is None:
            raise ExpertError(f"expert recorded: {self._run} has no receipt for {key} (question {question.id})")
        return advice


def build_expert(env: Env) -> Expert:
    """The expert that `env.expert` names.

    Raises:
        ConfigError: `env.recorded` holds no segments, or another version's.
    """
    return GoldExpert() if env.recorded is None else RecordedExpert(env.recorded)


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


def _recorded(run: Path) -> Iterator[Receipt]:
    segments = run / store.SEGMENTS
    numbers = [number for number, _ in store.stored(segments)]
    if not numbers:
        raise ConfigError(f"env.recorded: {segments} holds no iteration; name the folder of a run that has trained")
    played = [session for number in numbers for session in store.outcomes(segments, number)]
    for path in sorted((run / "evaluation").glob("[!.]*.parquet")):
        played += store.read_sessions(path)
    for session in played:
        yield from session.receipts


def _place(key: str) -> str:
    return key.rpartition("#")[0]


def _position(key: str) -> int:
    return int(key.rsplit("#", 2)[1])
