"""An expert that is sometimes wrong."""

from random import Random

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.seeds import derive


class Fallible:
    """Gives wrong advice with a fixed probability, drawn from the stream and the question's id."""

    source = "fallible"

    def __init__(self, wrong: float) -> None:
        self._wrong = wrong
        self.reliability = 1 - wrong

    def is_right(self, question: Question, *, stream: str) -> bool:
        """Whether its advice on a question of a stream is right."""
        return Random(derive(0, "fallible", stream, question.id)).random() >= self._wrong

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        if self.is_right(question, stream=key.stream):
            return Advice(text=question.advice, answer=question.answer)
        return Advice(text=f"not {question.advice}", answer=f"not {question.answer}")
