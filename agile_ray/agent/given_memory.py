"""What memory holds before the first session of a stream, where it does not start empty (AGILE, MedMCQA).

It is built once per process, shared by all lanes, never written to, and not part of checkpoints. Its entries have no
writer: they are no evidence for credit, and hindsight imagines no world without them.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

from agile_ray.agent.environment import Remembered
from agile_ray.agent.memory import KNOWLEDGE, QA, Embedder, Entry, Match, Memory
from agile_ray.types import NO_WRITER


class GivenMemory:
    """The answers and the knowledge of questions that were answered beforehand."""

    def __init__(self, remembered: Remembered, embedder: Embedder) -> None:
        """Write what an agent that asked all these questions would have written.

        Args:
            remembered: the questions.
            embedder: of the lanes' memories; it has embedded the questions' texts.
        """
        self._memory = Memory(embedder, capacity=max(1, len(remembered.questions)))
        self._numbers: dict[str, list[int]] = {}  # text of a question -> its numbers
        for number, question in enumerate(remembered.questions):
            self._numbers.setdefault(question.text, []).append(number)
            said = f"{question.text} {question.advice}".strip()
            for kind, scope, text in ((QA, question.product, said), (KNOWLEDGE, "", question.knowledge)):
                if text:
                    entry = Entry(kind=kind, scope=scope, key=question.text, text=text, writer=number)
                    self._memory.write(entry)

    def retrieve(self, question: str, *, kind: str, scope: str, top_k: int) -> list[Match]:
        """As `Memory.retrieve`, but never what was written on a question with this text."""
        own = self._own(question)
        found = self._memory.retrieve(question, kind=kind, scope=scope, top_k=top_k, without=own)
        return [replace(match, entry=replace(match.entry, writer=NO_WRITER)) for match in found]

    def similar(self, question: str, *, kind: str, scope: str, threshold: float) -> int:
        """As `Memory.similar`, without what was written on a question with this text."""
        own = self._own(question)
        return self._memory.similar(question, kind=kind, scope=scope, threshold=threshold, without=own)

    def _own(self, question: str) -> Collection[int]:
        return self._numbers.get(question, ())


@lru_cache(maxsize=4)
def given_memory(remembered: Remembered, embedder: Embedder) -> GivenMemory:
    """The memory of these questions, built at the first call."""
    return GivenMemory(remembered, embedder)


def merged(own: Sequence[Match], given: Sequence[Match], *, top_k: int) -> list[Match]:
    """The nearest of two lists of matches, best first, each text once; in a tie, what was given comes first."""
    distinct: dict[str, Match] = {}
    for match in sorted([*given, *own], key=lambda match: -match.similarity):
        distinct.setdefault(match.entry.text, match)
    return list(distinct.values())[:top_k]
