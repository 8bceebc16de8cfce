"""Where the questions of a stream recur: looked up by every session, found once per stream."""

from bisect import bisect_right
from collections.abc import Sequence

from agile_ray.agent.environment import Question


class Recurrence:
    """Positions of a stream's questions by item and by product, and of those with knowledge; each ascending."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        on_item: dict[str, list[int]] = {}
        self._on_product: dict[str, list[int]] = {}
        self._with_knowledge: list[int] = []
        for position, question in enumerate(questions):
            on_item.setdefault(question.item, []).append(position)
            self._on_product.setdefault(question.product, []).append(position)
            if question.knowledge:
                self._with_knowledge.append(position)
        self._on_item = {item: tuple(positions) for item, positions in on_item.items()}

    def same_item(self, position: int) -> tuple[int, ...]:
        """Positions of all questions on the item of the one at `position`, its own included."""
        return self._on_item[self._questions[position].item]

    def later_users(self, position: int) -> list[Question]:
        """Later questions that could use what the session at `position` may write.

        A QA pair is found only under its product, knowledge everywhere. So a question on another product counts only if
        both questions have knowledge to learn.
        """
        asked = self._questions[position]
        later = set(_after(self._on_product[asked.product], position))
        if asked.knowledge:
            later.update(_after(self._with_knowledge, position))
        return [self._questions[user] for user in sorted(later)]


def _after(positions: Sequence[int], position: int) -> Sequence[int]:
    return positions[bisect_right(positions, position) :]
