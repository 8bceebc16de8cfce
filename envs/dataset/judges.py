"""Judges of words, chosen by `env.judge`.

    exact     the answer, ignoring case, repeated spaces and a final full stop
    set       the same items, separated by commas or semicolons, in any order
    number    the same number: equal if the answer is whole, else to half a unit of its last digit
    regex     the answer is a regular expression that the whole text matches, ignoring case

A judge is a function of the question and the words that were submitted. It returns True or False, or a reward, and may
be async. With other rewards than 0 to 1 it has an attribute `reward_range = (lowest, highest)`. What equals the answer
is right for each of these four, so the expert's own answer is.
"""

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation

from agile_ray.agent.environment import Judgement, Question
from envs.rows import normalised

Judge = Callable[[Question, str], Judgement]
"""Whether words answer a question, or the reward that they earn."""

NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def exact(question: Question, said: str) -> bool:
    """Whether the words are the answer."""
    return _plain(said) == _plain(question.answer)


def same_set(question: Question, said: str) -> bool:
    """Whether the words list the items of the answer."""
    return _items(said) == _items(question.answer)


def number(question: Question, said: str) -> bool:
    """Whether the words hold one number, and it is the answer's."""
    return _near(question, said, tolerance=None)


def within(tolerance: float) -> Judge:
    """A judge of numbers with a tolerance, in units of the answer."""

    def judge(question: Question, said: str) -> bool:
        return _near(question, said, tolerance=tolerance)

    return judge


def regex(question: Question, said: str) -> bool:
    """Whether the answer, as a regular expression, matches all of the words."""
    return exact(question, said) or bool(re.fullmatch(question.answer, said.strip(), re.IGNORECASE | re.DOTALL))


JUDGES: Mapping[str, Judge] = {"exact": exact, "set": same_set, "number": number, "regex": regex}


def _plain(text: str) -> str:
    return normalised(text).removesuffix(".").strip()


def _items(text: str) -> frozenset[str]:
    return frozenset(item for part in re.split(r"[,;]", text) if (item := _plain(part)))


def _near(question: Question, said: str, *, tolerance: float | None) -> bool:
    gold, given = _number(question.answer), _number(said)
    if gold is None or given is None:
        return exact(question, said)
    if tolerance is None:
        exponent = gold.as_tuple().exponent
        tolerance = 0.5 * 10.0**exponent if isinstance(exponent, int) and exponent < 0 else 0.0
    return math.isclose(float(gold), float(given), rel_tol=1e-9, abs_tol=tolerance * (1 + 1e-9))


def _number(text: str) -> Decimal | None:
    """The only number in a text."""
    found = NUMBER.findall(text)
    try:
        return Decimal(found[0].replace(",", "")) if len(found) == 1 else None
    except InvalidOperation:
        return None
