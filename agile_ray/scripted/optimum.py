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


def worth_asking(question: Question, *, uses: float, price: float) -> bool:
    """Whether advice at first sight gains more than it costs.

    Args:
        uses: questions on the item from here on, this one included; may be an expectation.
        price: of one ask, in thousandths.
    """
    return not question.query and 1000 * uses * (1.0 - question.guess_chance) > price


def optimum(streams: Sequence[Sequence[Question]], *, price: int) -> Outcome:
    """The outcome of asking at first sight where it is `worth_asking`.

    Args:
        streams: the questions of each episode, in order; at least one.
        price: of one ask, in thousandths.
    """
    return outcome(streams, lambda _, question, later: worth_asking(question, uses=1 + later, price=price), price=price)


def outcome(streams: Sequence[Sequence[Question]], asks: Rule, *, price: float) -> Outcome:
    """Play an asking rule in expectation: advice is right and remembered, a guess counts at its chance.

        total = (expected right answers - price / 1000 * asks) / sessions, reward per session

    Args:
        streams: the questions of each episode, in order; at least one.
        asks: consulted where neither memory nor the tool has the answer.
        price: of one ask, in thousandths.
    """
    asked, lost = 0, 0.0
    for questions in streams:
        known: set[str] = set()
        for position, question, later in without_tool(questions):
            if question.item in known:
                continue
            if asks(position, question, later):
                known.add(question.item)
                asked += 1
            else:
                lost += 1.0 - question.guess_chance
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
