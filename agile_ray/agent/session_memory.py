"""What one session reads from memory, as token ids.

[GetQuestion] shows how many similar entries memory holds, [RetrieveMemory] shows entries. Both can also be rendered as
if some earlier sessions had written nothing. Counterfactual prefixes are built that way.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from agile_ray.agent.environment import Question, Remembered
from agile_ray.agent.memory import KNOWLEDGE, QA, Embedder, Entry, Match, Memory
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import Speaker, said
from agile_ray.types import NO_WRITER

Retrieved = Mapping[str, Sequence[Match]]
"""What memory returned, by kind of entry, best first."""


class GivenMemory:
    """What memory holds before the first session of a stream, where it does not start empty (AGILE, MedMCQA).

    It is shared by all lanes of a process, never written to, and not part of checkpoints. Its entries have no writer:
    they are no evidence for credit, and hindsight imagines no world without them.
    """

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


class SessionMemory:
    """A lane's memory, as the session at one position uses it."""

    def __init__(
        self,
        memory: Memory,
        *,
        questions: Sequence[Question],
        position: int,
        rules: Rules,
        price: int,
        given: GivenMemory | None = None,
        colleague: int | None = None,
    ) -> None:
        """Bind the memory to a session.

        Args:
            memory: of the lane.
            questions: of the whole stream.
            position: of the session in it.
            rules: of the lane.
            price: of one ask in this session, thousandths.
            given: what memory held before the stream's first session; None: nothing.
            colleague: price of one ask of the second expert, thousandths; None: there is none.
        """
        self.questions = questions
        self.position = position
        self._memory = memory
        self._given = given
        self._tokenizer = rules.tokenizer
        self._config = rules.memory
        self._prices_shown = _shown(price, colleague, told=rules.prices.told)

    @property
    def question(self) -> Question:
        """The session's question."""
        return self.questions[self.position]

    @property
    def writers(self) -> Collection[int]:
        """Positions of the sessions whose entries memory holds."""
        return self._memory.writers

    def write(self, kind: str, *, scope: str, text: str) -> bool:
        """Write a text in the name of this session, to be found by its question.

        Returns:
            False if memory has the text under an equal question already, or is full.
        """
        entry = Entry(kind=kind, scope=scope, key=self.question.text, text=text, writer=self.position)
        return self._memory.write(entry)

    def take_back(self) -> None:
        """Remove what this session wrote, as if it had never been written."""
        self._memory.forget(self.position)

    def has(self, kind: str, *, scope: str, text: str) -> bool:
        """Whether memory has an entry with this text, whoever wrote it."""
        return self._memory.has(kind, scope=scope, text=text)

    def similar(self, without: Collection[int] = ()) -> tuple[int, int]:
        """Count the QA pairs of this product, and the pieces of knowledge, that were written on a similar question.

        Args:
            without: positions of sessions whose entries are not counted.
        """
        return (
            self._count(QA, scope=self.question.product, without=without),
            self._count(KNOWLEDGE, scope="", without=without),
        )

    def _count(self, kind: str, *, scope: str, without: Collection[int]) -> int:
        threshold, text = self._config.threshold, self.question.text
        own = self._memory.similar(text, kind=kind, scope=scope, threshold=threshold, without=without)
        if self._given is None:
            return own
        return own + self._given.similar(text, kind=kind, scope=scope, threshold=threshold)

    def cosine(self, writer: int) -> float:
        """Cosine of the session's question and the question at another position."""
        return self._memory.cosine(self.question.text, self.questions[writer].text)

    def retrieve(self, without: Collection[int] = ()) -> Retrieved:
        """Find what is most similar to the question; never what this session wrote itself.

        Args:
            without: positions of further sessions whose entries are skipped.
        """
        skipped = {self.position, *without}
        return {
            kind: self._nearest(kind, scope=scope, without=skipped)
            for kind, scope in ((QA, self.question.product), (KNOWLEDGE, ""))
        }

    def _nearest(self, kind: str, *, scope: str, without: Collection[int]) -> Sequence[Match]:
        text, top_k = self.question.text, self._config.top_k
        own = self._memory.retrieve(text, kind=kind, scope=scope, top_k=top_k, without=without)
        if self._given is None:
            return own
        return _merged(own, self._given.retrieve(text, kind=kind, scope=scope, top_k=top_k), top_k=top_k)

    def question_reply(self, without: Collection[int] = ()) -> list[int]:
        """Ids that [GetQuestion] appends: the status line and the question.

        Args:
            without: positions of sessions whose entries the status line does not count.
        """
        progress = 10 * (10 * self.position // len(self.questions))
        questions, knowledge = self.similar(without)
        status = f"progress {progress} questions {min(questions, 9)} knowledge {min(knowledge, 9)}{self._prices_shown}"
        return said(self._tokenizer, f"{status}\n{self.question.shown}\n", speaker=Speaker.USER)

    def retrieval_reply(self, found: Retrieved) -> list[int]:
        """Ids that [RetrieveMemory] appends: every entry, cut to `memory.entry_tokens`."""
        lines = list(self._lines(found))
        if self._tokenizer.chat is not None:
            return said(self._tokenizer, "".join(text for text, _ in lines), speaker=Speaker.TOOL)
        return [token for _, ids in lines for token in ids]

    def _lines(self, found: Retrieved) -> Iterator[tuple[str, list[int]]]:
        """Each line as text, for frames that are encoded with it, and as ids."""
        for kind, title in ((QA, "history"), (KNOWLEDGE, "knowledge")):
            if not found[kind]:
                none = f"{title} : none\n"
                yield none, self._tokenizer.encode(none)
            for match in found[kind]:
                text = f"{title} : {match.entry.text}"
                ids = self._tokenizer.encode(text)
                kept = ids[: self._config.entry_tokens]
                shown = text if len(kept) == len(ids) else self._tokenizer.decode(kept)
                yield f"{shown}\n", [*kept, *self._tokenizer.encode("\n")]


def _shown(price: int, colleague: int | None, *, told: bool) -> str:
    """What the status line says of prices, if it tells them."""
    if not told:
        return ""
    return f" price {price / 1000:g}" + ("" if colleague is None else f" colleague {colleague / 1000:g}")


def _merged(own: Sequence[Match], given: Sequence[Match], *, top_k: int) -> list[Match]:
    """The nearest of two lists of matches, best first, each text once; in a tie, what was given comes first."""
    distinct: dict[str, Match] = {}
    for match in sorted([*given, *own], key=lambda match: -match.similarity):
        distinct.setdefault(match.entry.text, match)
    return list(distinct.values())[:top_k]
