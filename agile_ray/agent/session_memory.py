"""What one session reads from memory, as token ids.

[GetQuestion] shows how many similar entries memory holds, [RetrieveMemory] shows entries. Both can also be rendered as
if some earlier sessions had written nothing. Counterfactual prefixes are built that way.
"""

from collections.abc import Collection, Mapping, Sequence

from agile_ray.agent.environment import Question
from agile_ray.agent.memory import KNOWLEDGE, QA, Entry, Match, Memory
from agile_ray.agent.rules import Rules

Retrieved = Mapping[str, Sequence[Match]]
"""What memory returned, by kind of entry, best first."""


class SessionMemory:
    """A lane's memory, as the session at one position uses it."""

    def __init__(
        self, memory: Memory, *, questions: Sequence[Question], position: int, rules: Rules, price: int
    ) -> None:
        """Bind the memory to a session.

        Args:
            memory: of the lane.
            questions: of the whole stream.
            position: of the session in it.
            rules: of the lane.
            price: of one ask in this episode, thousandths.
        """
        self.questions = questions
        self.position = position
        self._memory = memory
        self._tokenizer = rules.tokenizer
        self._config = rules.memory
        self._status_line = rules.agent.status_line
        self._price_shown = f" price {price / 1000:g}" if rules.prices.told else ""

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
        threshold, text = self._config.threshold, self.question.text
        count, product = self._memory.similar, self.question.product
        return (
            count(text, kind=QA, scope=product, threshold=threshold, without=without),
            count(text, kind=KNOWLEDGE, scope="", threshold=threshold, without=without),
        )

    def cosine(self, writer: int) -> float:
        """Cosine of the session's question and the question at another position."""
        return self._memory.cosine(self.question.text, self.questions[writer].text)

    def retrieve(self, without: Collection[int] = ()) -> Retrieved:
        """Find what is most similar to the question; never what this session wrote itself.

        Args:
            without: positions of further sessions whose entries are skipped.
        """
        text, top_k = self.question.text, self._config.top_k
        skipped = {self.position, *without}
        return {
            kind: self._memory.retrieve(text, kind=kind, scope=scope, top_k=top_k, without=skipped)
            for kind, scope in ((QA, self.question.product), (KNOWLEDGE, ""))
        }

    def question_reply(self, without: Collection[int] = ()) -> list[int]:
        """Ids that [GetQuestion] appends: the status line, if there is one, and the question.

        Args:
            without: positions of sessions whose entries the status line does not count.
        """
        status = ""
        if self._status_line:
            progress = 10 * (10 * self.position // len(self.questions))
            questions, knowledge = self.similar(without)
            status = (
                f"progress {progress} questions {min(questions, 9)} knowledge {min(knowledge, 9)}{self._price_shown}\n"
            )
        return self._tokenizer.encode(f"{status}{self.question.shown}\n")

    def retrieval_reply(self, found: Retrieved) -> list[int]:
        """Ids that [RetrieveMemory] appends: every entry, cut to `memory.entry_tokens`."""
        reply: list[int] = []
        for kind, title in ((QA, "history"), (KNOWLEDGE, "knowledge")):
            if not found[kind]:
                reply += self._tokenizer.encode(f"{title} : none\n")
            for match in found[kind]:
                ids = self._tokenizer.encode(f"{title} : {match.entry.text}")[: self._config.entry_tokens]
                reply += [*ids, *self._tokenizer.encode("\n")]
        return reply
