"""The best policy for a stream, given each question's guess probability and all questions to come.

It does not know whether a guess turns out right. Advice on an item answers all its later questions, because reading
memory is free. Take an item with n questions, guess probability g and price c. Asking at its j-th question, and
nowhere else, earns (j - 1) g + (n - j + 1) - c. This falls with j, by 1 - g >= 0 at each step, so the first question is
the best time to ask; a second ask gains nothing. Compared with never asking, which earns n g, asking first gains

    n (1 - g) - c

so it is right to ask at first sight if and only if n (1 - g) > c. Items are independent, so this rule for each item
gives the optimum of the stream. Questions that the tool answers are right for free and are never asked.

The rule assumes that retrieval finds every entry it should. Where retrieval misses, the result is an upper bound.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from agile_ray.agent.environment import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """The optimum of a set of streams."""

    asked_share: float  # of all sessions
    accuracy: float  # expected
    total: float  # expected own reward per session


def worth_asking(question: Question, *, uses: int, price: int) -> bool:
    """Whether advice at first sight gains more than it costs.

    Args:
        question: on the item.
        uses: questions on the item from this one on, this one included.
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
    """Find the K with the highest expected total when exactly the first K questions of every stream are asked.

    Asking one more question adds left * (1 - guess probability) - price / 1000, in reward, where neither memory nor the
    tool has the answer; `left` counts the questions on the item from that one on. Elsewhere it costs the price. Of
    equal totals the smallest K wins.

    Args:
        streams: the questions of each episode, in order, at least one. Use validation streams: the choice depends on
            them.
        price: of one ask, thousandths.
    """
    length = max(len(questions) for questions in streams)
    gains = [0.0] * length  # by position: what asking there adds, if all earlier positions are asked
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
