"""The best policy for a stream, given each question's guess probability and all questions to come.

It knows the share a of advice that is right, but neither whether a piece of advice is, nor whether a guess turns out
right. Advice on an item answers all its later questions, because reading memory is free; wrong advice answers them
wrong. Take an item with n questions, guess probability g and price c. Asking at its j-th question, and nowhere else,
earns (j - 1) g + (n - j + 1) a - c in expectation. Compared with never asking, which earns n g, that gains

    (n - j + 1) (a - g) - c

which is above 0 for some j only if a > g, and then falls with j, so the first question is the best time to ask. A
second ask gains nothing, since new advice is right as often as old. So it is right to ask at first sight if and only
if n (a - g) > c. Items are independent, so this rule for each item gives the optimum of the stream. Questions that the
tool answers are right for free and are never asked.

The rule assumes that retrieval finds every entry it should, that every guess and piece of advice is right with the
same probability whatever is known, and that answers are not put together from several pieces of advice. Where
retrieval misses, the result is an upper bound.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from agile_ray.agent.environment import Question

Rule = Callable[[int, Question, int], bool]
"""Whether to ask, given position, question and the number of later questions on its item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an asking rule does with some streams, in expectation over guesses."""

    asked_share: float  # share of all sessions
    accuracy: float
    total: float  # own reward per session


def worth_asking(question: Question, *, uses: float, price: float, reliability: float = 1.0) -> bool:
    """Whether advice at first sight gains more than it costs.

    Args:
        uses: questions on the item from here on, this one included; may be an expected number.
        price: of one ask, in thousandths.
        reliability: share of advice that is right.
    """
    return not question.query and gain_of_asking(question, uses=uses, price=price, reliability=reliability) > 0


def gain_of_asking(question: Question, *, uses: float, price: float, reliability: float = 1.0) -> float:
    """What advice at first sight gains, its price subtracted, in thousandths; arguments as of `worth_asking`."""
    return 1000 * uses * (reliability - question.guess_probability) - price


def optimum(streams: Sequence[Sequence[Question]], *, price: int, reliability: float = 1.0) -> Outcome:
    """Compute the expected outcome of asking at first sight wherever it is `worth_asking`.

    Args:
        streams: the questions of each episode, in order; at least one.
        price: of one ask, in thousandths.
        reliability: share of advice that is right.
    """

    def asks(_: int, question: Question, later: int) -> bool:
        return worth_asking(question, uses=1 + later, price=price, reliability=reliability)

    return outcome(streams, asks, price=price, reliability=reliability)


def outcome(streams: Sequence[Sequence[Question]], asks: Rule, *, price: float, reliability: float = 1.0) -> Outcome:
    """Compute the expected outcome of an asking rule. Advice is remembered.

        total = (expected right answers - price / 1000 * asks) / sessions, reward per session

    A guess counts as `guess_probability` right answers, an answer from advice or from memory as `reliability`.

    Args:
        streams: the questions of each episode, in order; at least one.
        asks: consulted where neither memory nor the tool has the answer.
        price: of one ask, in thousandths.
        reliability: share of advice that is right.
    """
    asked, lost = 0, 0.0
    for questions in streams:
        known: set[str] = set()
        for position, question, later in without_tool(questions):
            if question.item not in known and asks(position, question, later):
                known.add(question.item)
                asked += 1
            lost += 1.0 - (reliability if question.item in known else question.guess_probability)
    sessions = sum(map(len, streams))
    return Outcome(
        asked_share=asked / sessions,
        accuracy=1 - lost / sessions,
        total=1 - (lost + asked * price / 1000) / sessions,
    )


def without_tool(questions: Sequence[Question]) -> Iterator[tuple[int, Question, int]]:
    """Yield the questions that the tool does not answer: position, question, number of later ones on its item."""
    left = Counter(question.item for question in questions if not question.query)
    for position, question in enumerate(questions):
        if not question.query:
            left[question.item] -= 1
            yield position, question, left[question.item]


def best_first(
    streams: Sequence[Sequence[Question]], *, prices: Sequence[int | Sequence[int]], reliability: float = 1.0
) -> int:
    """Find the K with the highest expected total when exactly the first K questions of every stream are asked.

    Asking one more question adds left * (reliability - guess probability) - price / 1000, in reward, where neither
    memory nor the tool has the answer; `left` counts the questions on the item from that one on. Where memory has it,
    asking only costs the price; where the tool has it, also 1 - reliability, since advice is submitted. Of equal totals
    the smallest K wins.

    Args:
        streams: the questions of each episode, in order, at least one. Use validation streams: the choice depends on
            them. Leave out questions that are not played.
        prices: of one ask in each episode, or in each of its sessions, thousandths.
        reliability: share of advice that is right.
    """
    length = max(len(questions) for questions in streams)
    gains = [0.0] * length  # by position: what asking there adds, if all earlier positions are asked
    for questions, price in zip(streams, prices, strict=True):
        left = Counter(question.item for question in questions)
        known: set[str] = set()
        for position, question in enumerate(questions):
            if question.query:
                gain = reliability - 1.0
            elif question.item in known:
                gain = 0.0
            else:
                gain = left[question.item] * (reliability - question.guess_probability)
            gains[position] += gain - (price if isinstance(price, int) else price[position]) / 1000
            known.add(question.item)
            left[question.item] -= 1
    totals = [0.0, *accumulate(gains)]
    return max(range(len(totals)), key=lambda first: (round(totals[first], 9), -first))
