"""Counts the later questions of a stream that could use what a session may write."""

from collections.abc import Iterable, Sequence

import numpy as np

from agile_ray.agent.environment import Question
from agile_ray.agent.memory import Embedder
from agile_ray.types import Float32, Int64

_ROWS = 512  # questions that are compared with all others of their group at once


def later_similar(questions: Sequence[Question], *, embedder: Embedder, threshold: float) -> Int64:
    """Count, for every question of a stream, the similar ones that follow: N of AGILE, eq. 7.

    A QA pair is found only under its product, knowledge everywhere. So a question on another product counts only if
    both questions have knowledge to learn.

    Args:
        questions: of the whole stream, Q.
        embedder: of the lane's memory; embeds every question once.
        threshold: cosine above which two questions are similar.

    Returns:
        int64 [Q].
    """
    counts = np.zeros(len(questions), dtype=np.int64)
    if not questions:
        return counts
    vectors = embedder.embed([question.text for question in questions])
    products = np.unique([question.product for question in questions], return_inverse=True)[1]
    for members in _groups(products):
        counts[members] += _similar_after(vectors[members], threshold)
    learning = np.flatnonzero([bool(question.knowledge) for question in questions])
    counts[learning] += _similar_after(vectors[learning], threshold)
    for members in _groups(products[learning]):  # these pairs are in both groups
        counts[learning[members]] -= _similar_after(vectors[learning[members]], threshold)
    return counts


def _groups(labels: Int64) -> Iterable[Int64]:
    """Indices of equal labels, in order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else ()


def _similar_after(vectors: Float32, threshold: float) -> Int64:
    """Number of later rows whose cosine to each row is above a threshold."""
    counts = [
        np.triu(vectors[start : start + _ROWS] @ vectors[start:].T > threshold, k=1).sum(axis=1)
        for start in range(0, len(vectors), _ROWS)
    ]
    return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int64)
