"""The best that can be done with a stream, given each guess chance and the questions to come, never a guess's outcome.

Advice on an item answers all its later questions, because memory is free to read. Take an item with n questions, guess
chance g and price c. Asking at its j-th question, and nowhere else, earns (j - 1) g + (n - j + 1) - c. This falls with
j, by 1 - g >= 0 at each step, so the first question is the best place; a second ask buys nothing. Against never asking,
which earns n g, it gains

    n (1 - g) - c

so it is right to ask at first sight if and only if n (1 - g) > c. Items do not touch one another, so the rule for each
of them gives the optimum of the stream. What the tool answers is right for nothing and never asked.
The rule takes memory to return what it holds: where retrieval misses, it is a bound that no policy need reach.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from agile_ray.agent.environment import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """What the optimum does with some streams."""

    asked_share: float  # of all sessions
    accuracy: float  # expected
    total: float  # expected own reward a session


def worth_asking(question: Question, *, uses: int, price: int) -> bool:
    """Whether advice at first sight gains more than it costs.

    Args:
        uses: questions that rest on the item from here on, this one included.
        price: thousandths.
    """
    return not question.query and 1000 * uses * (1.0 - question.guess_chance) > price


def optimum(streams: Sequence[Sequence[Question]], *, price: int) -> Optimum:
    """Asked share, expected accuracy and total of the optimum: ask at first sight where it is `worth_asking`.

        total = (expected right answers - price / 1000 * asks) / sessions, reward per session

    Args:
        streams: the questions of each episode, in order; at least one.
        price: of one ask, thousandths.
    """
    asked, right, sessions = 0, 0.0, 0
    for questions in streams:
        uses = Counter(question.item for question in questions)
        bought = {q.item for q in questions if worth_asking(q, uses=uses[q.item], price=price)}
        asked += len(bought)
        right += sum(1.0 if q.query or q.item in bought else q.guess_chance for q in questions)
        sessions += len(questions)
    return Optimum(
        asked_share=asked / sessions, accuracy=right / sessions, total=(right - asked * price / 1000) / sessions
    )


def best_first(streams: Sequence[Sequence[Question]], *, price: int) -> int:
    """The K that is best for asking exactly the first K questions of every stream, in expectation; the least of equals.

    Asking at a place too adds left * (1 - guess chance) - price / 1000, in reward, where neither memory nor the tool
    has the answer, with `left` the questions on the item from there on; elsewhere it costs the price.

    Args:
        streams: the questions of each episode, in order, at least one; of validation, since the choice looks at them.
        price: of one ask, thousandths.
    """
    length = max(len(questions) for questions in streams)
    gains = [0.0] * length  # by position: what asking there too adds, when all before are asked
    for questions in streams:
        left = Counter(question.item for question in questions)
        known: set[str] = set()
        for position, question in enumerate(questions):
            free = bool(question.query) or question.item in known
            gains[position] += -price / 1000 + (0.0 if free else left[question.item] * (1.0 - question.guess_chance))
            known.add(question.item)
            left[question.item] -= 1
    totals = [0.0, *accumulate(gains)]
    return max(range(len(totals)), key=lambda first: (round(totals[first], 9), -first))
