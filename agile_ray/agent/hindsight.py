"""How often a question comes back later in its stream: N of AGILE, eq. 7. Hindsight, for training only."""

from collections.abc import Sequence

from agile_ray.agent.environment import Question
from agile_ray.agent.memory import Embedder


def later_similar(questions: Sequence[Question], position: int, *, embedder: Embedder, threshold: float) -> int:
    """Count later questions that could use what the session at `position` may write.

    A QA pair is found under its product alone, knowledge everywhere: so another product's question counts only where
    there is knowledge to be learned.

    Args:
        threshold: cosine above which two questions are similar.
    """
    asked = questions[position]
    later = [
        question.text
        for question in questions[position + 1 :]
        if question.product == asked.product or (asked.knowledge and question.knowledge)
    ]
    if not later:
        return 0
    cosines = embedder.embed(later) @ embedder.embed([asked.text])[0]
    return int((cosines > threshold).sum())
