"""Hypervolume of a frontier: what share of asks and accuracy together are worth, in one number.

Dimensions: K = points of one frontier.
"""

import numpy as np

from agile_ray.types import Float64


def hypervolume(shares_K: Float64, accuracies_K: Float64, *, worst_share: float, worst_accuracy: float) -> float:
    """Compute the area that a frontier dominates, up to a reference point.

    A point (s, a) dominates every point that asks at least as often and is right at most as often. A point that is not
    better than the reference point in both adds nothing. Zitzler and Thiele, "Multiobjective evolutionary algorithms: a
    comparative case study and the strength Pareto approach", 1999.

    Args:
        shares_K: float64 [K], shares of sessions that asked; smaller is better.
        accuracies_K: float64 [K], shares of right answers; larger is better.
        worst_share: asked share of the reference point.
        worst_accuracy: accuracy of the reference point.

    Returns:
        the area, a share of sessions times an accuracy; 0.0 for no points.
    """
    inside = (shares_K < worst_share) & (accuracies_K > worst_accuracy)
    order = np.argsort(shares_K[inside])
    shares, accuracies = shares_K[inside][order], accuracies_K[inside][order]
    best = np.maximum.accumulate(accuracies)  # at each share, the best accuracy of all points that ask no more
    return float(np.diff(shares, append=worst_share) @ (best - worst_accuracy))
