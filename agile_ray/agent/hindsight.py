"""Facts about a session that credit needs and the agent does not see: hidden items, the future, counterfactuals."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from agile_ray.agent.environment import Question
from agile_ray.agent.recurrence import Recurrence
from agile_ray.agent.rules import Rules
from agile_ray.agent.session_memory import Retrieved, SessionMemory
from agile_ray.types import LONG_COUNTERFACTUAL, NO_WRITER, Counterfactual, Hindsight


class Held:
    """The questions of the sessions whose entries a lane's memory holds, counted by item and by topic."""

    def __init__(self, questions: Sequence[Question]) -> None:
        """Hold nothing of a stream with these questions."""
        self.items: Counter[str] = Counter()
        self.topics: Counter[str] = Counter()
        self._questions = questions
        self._writers: set[int] = set()

    def follow(self, writers: Collection[int]) -> None:
        """Take in which sessions have written, or were forgotten, since the last call."""
        changed = self._writers.symmetric_difference(writers)
        for writer in changed:
            question, more = self._questions[writer], -1 if writer in self._writers else 1
            self.items[question.item] += more
            self.topics[question.topic] += more
        self._writers ^= changed


class HindsightObserver:
    """Watches one session and builds its `Hindsight`. Changes nothing that the policy reads."""

    def __init__(
        self,
        memory: SessionMemory,
        rules: Rules,
        *,
        recurrence: Recurrence,
        held: Held,
        later_similar: int = 0,
        imagines: bool = False,
    ) -> None:
        """Look at memory before the session begins.

        Args:
            memory: at the position of the session.
            rules: of the lane.
            recurrence: of the whole stream's questions.
            held: of the lane.
            later_similar: similar questions that follow in the stream; 0 where nobody uses it.
            imagines: build counterfactual prefixes.
        """
        self._imagines = imagines
        self._memory = memory
        self._recurrence = recurrence
        self._later_similar = later_similar
        self._session_tokens = rules.agent.session_tokens
        held.follow(memory.writers)
        self._known = held.items[memory.question.item] > 0
        self._memory_sizes = {topic: size for topic, size in held.topics.items() if size}
        self._stored_similar = max(memory.similar())  # of the kind that has more
        self._counterfactuals: list[Counterfactual] = []
        self._decided_after: int | None = None

    def retrieved(self, found: Retrieved, *, context_ids: Sequence[int], shown: slice) -> list[str]:
        """Build the counterfactual prefixes: without each writer of a returned entry, and without all of them.

        Args:
            found: what memory returned.
            context_ids: the context before the reply of [RetrieveMemory].
            shown: where the reply of [GetQuestion] is in the context.

        Returns:
            Remarks for the session: one for each counterfactual that is too long to be kept.
        """
        if not self._imagines:
            return []
        writers = sorted({match.entry.writer for matches in found.values() for match in matches} - {NO_WRITER})
        groups = [(writer,) for writer in writers] + ([tuple(writers)] if len(writers) > 1 else [])
        imagined = [self._without(group, context_ids=context_ids, shown=shown) for group in groups]
        self._counterfactuals = [one for one in imagined if len(one.prefix_ids) < self._session_tokens]
        return [LONG_COUNTERFACTUAL] * (len(imagined) - len(self._counterfactuals))

    def _without(self, writers: tuple[int, ...], *, context_ids: Sequence[int], shown: slice) -> Counterfactual:
        prefix = [
            *context_ids[: shown.start],
            *self._memory.question_reply(writers),
            *context_ids[shown.stop :],
            *self._memory.retrieval_reply(self._memory.retrieve(writers)),
        ]
        return Counterfactual(
            writers=writers,
            similarity=min(self._memory.cosine(writer) for writer in writers),
            prefix_ids=np.array(prefix, dtype=np.int32),
        )

    def decided(self, *, actions: int) -> None:
        """Record that the session wrote memory, or can no longer write it; only the first call counts.

        Args:
            actions: action tokens taken so far, the deciding one included.
        """
        if self._decided_after is None:
            self._decided_after = actions

    def hindsight(self, *, actions: int, unaided: str | None) -> Hindsight:
        """Everything that was observed.

        Args:
            actions: action tokens of the whole session; the last one decides if none did before.
            unaided: the words that were submitted; None if there are none, or the session had advice or rows.
        """
        return Hindsight(
            known=self._known,
            memory_sizes=self._memory_sizes,
            stored_similar=self._stored_similar,
            later_similar=self._later_similar,
            same_item=self._recurrence.same_item(self._memory.position),
            counterfactuals=tuple(self._counterfactuals),
            guess_probability=guess_probability(self._memory.question, None if self._known else unaided),
            decided_after=actions if self._decided_after is None else self._decided_after,
        )


def guess_probability(question: Question, unaided: str | None) -> float | None:
    """Probability that an answer is right if it is the question's best guess and the rest is luck; None otherwise.

    Other words count as judged: they may be a worse guess, whose probability the question does not say.

    Args:
        question: that was answered.
        unaided: the words that were submitted; None if memory held the item, or the session had advice or rows.
    """
    guessed = unaided is not None and " ".join(unaided.lower().split()) == question.guess
    return question.guess_probability if guessed and question.guess_drawn else None
