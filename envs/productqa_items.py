"""Which questions of ProductQA ask for the same fact: paraphrases about one product with one answer.

The release doesn't say. So two questions count as the same fact if they share product, answer and enough rare words.
Words suffice, and need no model: a fact then means the same to every run, whatever embeds the agent's memory.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

SAME_FACT = 0.6
"""Cosine from which a question asks for the fact of an earlier one. Chosen on the 20 training categories: of the
questions whose nearest earlier one on their product is this near (20 % of all), 80 % have its answer; 87 % do from 0.85
on, 46 % below 0.3."""


def items(facts: Sequence[tuple[str, str, str]]) -> list[str]:
    """Name the fact that each question asks for; equal names have one product and one answer.

    A question that was asked before asks for the same fact again. Another one asks for the fact of the nearest earlier
    question that began a fact, if that is near enough. Otherwise it begins a fact itself.

    Args:
        facts: product, question and answer of each, the last two normalised; of one category, in stream order.
    """
    began: dict[tuple[str, str], list[tuple[str, Mapping[str, float]]]] = {}  # by product and answer: name and vector
    named: dict[tuple[str, str, str], str] = {}
    for fact, vector in zip(facts, _vectors([text for _, text, _ in facts]), strict=True):
        if fact in named:
            continue
        product, question, answer = fact
        earlier = began.setdefault((product, answer), [])
        near = [(_dot(vector, other), name) for name, other in earlier]
        cosine, name = max(near, key=lambda found: found[0], default=(0.0, ""))
        if cosine < SAME_FACT:
            name = f"{product}/{question}/{answer}"
            earlier.append((name, vector))
        named[fact] = name
    return [named[fact] for fact in facts]


def _vectors(texts: Sequence[str]) -> list[Mapping[str, float]]:
    """Word -> weight of each text: inverse document frequencies, as scikit-learn's TfidfVectorizer has, to length 1."""
    # In the order of the text, not of a set: sums of floats depend on it, and every process must find the same items.
    words = [dict.fromkeys(re.findall(r"\w+", text) or [text]) for text in texts]
    found_in = Counter(word for distinct in words for word in distinct)
    weights = {word: 1 + math.log((1 + len(texts)) / (1 + count)) for word, count in found_in.items()}
    vectors: list[Mapping[str, float]] = []
    for distinct in words:
        length = math.sqrt(sum(weights[word] ** 2 for word in distinct))
        vectors.append({word: weights[word] / length for word in distinct})
    return vectors


def _dot(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return sum(weight * other[word] for word, weight in one.items() if word in other)
