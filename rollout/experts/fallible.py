"""An expert that is sometimes wrong, or does not know.

Both are drawn for each question of a stream, and for each of two experts, from the run's seed, the stream, the
question's id and who is asked: asked again, it says the same, and runs with other seeds err on other questions.
"""

import re
from random import Random

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey, Expert, is_patient
from agile_ray.seeds import derive
from agile_ray.types import Outcome
from envs.dataset.judges import exact, number, same_set

OPPOSITES = {"yes": "no", "no": "yes"}


class FallibleExpert:
    """Replaces a share of another expert's answers."""

    def __init__(self, expert: Expert, *, wrong: float = 0.0, abstains: float = 0.0, seed: int = 0) -> None:
        """Wrap an expert.

        Args:
            expert: whose answers are replaced.
            wrong: share of the answers that it gives which are wrong ones instead.
            abstains: share of the questions that it does not answer.
            seed: root seed of the run.
        """
        self._expert = expert
        self._wrong = wrong
        self._abstains = abstains
        self._seed = seed
        self.source = expert.source
        self.reliability = expert.reliability * (1 - wrong)
        self.patient = is_patient(expert, to="")

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        if self._draw("abstains", question, key) < self._abstains:
            return Advice.none(Outcome.ABSTAINED)
        if self._draw("wrong", question, key) < self._wrong:
            answer = wrong_answer(question)
            return Advice(text=answer, answer=answer)
        return await self._expert.advise(question, key=key)

    def _draw(self, purpose: str, question: Question, key: AskKey) -> float:
        return Random(derive(self._seed, "expert", purpose, key.to, key.stream, question.id)).random()


def wrong_answer(question: Question) -> str:
    """A wrong answer that could be meant: the opposite, else the best guess, else other digits, else a negation."""
    right = question.answer
    if right in OPPOSITES:
        return OPPOSITES[right]
    other_digits = re.sub("[0-9]", lambda digit: str((int(digit[0]) + 1) % 10), right)
    meant = (question.guess, other_digits)
    return next((said for said in meant if said and not _may_be_right(question, said)), f"not {right}")


def _may_be_right(question: Question, said: str) -> bool:
    """Whether a judge takes the words for the answer; "not 5" holds the number 5."""
    return any(judge(question, said) for judge in (exact, same_set, number))
