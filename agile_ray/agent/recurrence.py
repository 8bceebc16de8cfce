"""Where the questions of a stream recur: looked up by every session, found once per stream."""

from collections.abc import Sequence

from agile_ray.agent.environment import Question


class Recurrence:
    """Positions of a stream's questions by item, ascending."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        on_item: dict[str, list[int]] = {}
        for position, question in enumerate(questions):
            on_item.setdefault(question.item, []).append(position)
        self._on_item = {item: tuple(positions) for item, positions in on_item.items()}

    def same_item(self, position: int) -> tuple[int, ...]:
        """Positions of all questions on the item of the one at `position`, its own included."""
        return self._on_item[self._questions[position].item]
