"""The teacher of imitation: when it asks, and what it answers where neither memory nor the tool helps."""

from collections.abc import Sequence

from agile_ray.agent.environment import Environment, Question
from agile_ray.agent.policy import Policy
from agile_ray.config import Imitation
from agile_ray.scripted.reader import Scripted, best_guess, needs_advice, read_answer, slips_at_random
from agile_ray.scripted.references import REFERENCES, Habits
from agile_ray.types import Session


def teacher(config: Imitation, environment: Environment, *, seed: int) -> Policy:
    """Build the teacher. Its draws depend only on (seed, stream, position)."""
    habits = Habits(seed=seed, asked_share=config.asked_share, asking=config.asking)
    return Scripted(
        REFERENCES["teacher"](habits),
        search_function=environment.search_function,
        guess=_gold if config.answers == "gold" else best_guess,
        slips=slips_at_random(config.wrong_queries, seed=seed),
    )


def collector(environment: Environment) -> Policy:
    """Build the policy of warm passes: it asks wherever neither memory nor the tool helps.

    It buys no answers to searches: memory would fill with product ids, which no later question needs.
    """
    return Scripted(needs_advice, search_function=environment.search_function, guess=best_guess)


def unaided(session: Session, questions: Sequence[Question]) -> bool:
    """Whether a teacher's session answered without advice, memory or tool.

    Args:
        session: played by the teacher.
        questions: of its stream.
    """
    question = questions[session.position]
    return not (session.receipts or question.query or read_answer(session.reads, question, questions))


def _gold(question: Question) -> str:
    """The right answer, except where the tool refused the gold query: nobody knows a table's rows by heart."""
    return question.guess if question.query else question.answer
