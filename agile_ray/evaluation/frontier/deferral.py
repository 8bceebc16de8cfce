"""The deferral curve: the accuracy that policies reach at each share of sessions that ask.

A coin between two policies reaches every point on the line between them, so the curve is the upper hull of the
policies. A share of asks need not be used up, so it does not fall either.

Dimensions: K = points, H = corners of the curve.
"""

from dataclasses import dataclass

import numpy as np

from agile_ray.types import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferralCurve:
    """Corners of a concave curve that does not fall; behind the last one it is level."""

    shares_H: Float64  # [H], of sessions that asked, ascending; the first is 0
    accuracies_H: Float64  # [H], ascending


def deferral_curve(shares_K: Float64, accuracies_K: Float64, *, unaided: float) -> DeferralCurve:
    """Compute the curve through the best points: the non-decreasing hull of RouterBench (Hu et al., 2024, section 3.2).

    Args:
        shares_K: float64 [K], shares of sessions that asked, in [0, 1].
        accuracies_K: float64 [K], shares of right answers.
        unaided: accuracy of a policy that never asks.
    """
    shares, accuracies = np.append(shares_K, 0.0), np.append(accuracies_K, unaided)
    hull: list[tuple[float, float]] = []
    for index in np.lexsort((-accuracies, shares)):  # of equal shares, the highest accuracy comes first
        point = float(shares[index]), float(accuracies[index])
        if hull and point[1] <= hull[-1][1]:
            continue
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    corners = np.array(hull)
    return DeferralCurve(shares_H=corners[:, 0], accuracies_H=corners[:, 1])


def area(curve: DeferralCurve) -> float:
    """Area under the curve from no session that asks to all: its mean accuracy over a uniform share of asks.

    Jitkrittum et al., "Universal model routing for efficient LLM inference", 2025, report the same area.
    """
    shares, accuracies = np.append(curve.shares_H, 1.0), np.append(curve.accuracies_H, curve.accuracies_H[-1])
    return float(np.trapezoid(accuracies, shares))


def share_needed(curve: DeferralCurve, accuracy: float) -> float | None:
    """Smallest share of sessions that must ask to be right in a given share; None if the curve does not reach it.

    The call-performance threshold of RouteLLM (Ong et al., 2024, section 3.3), with asks in the place of calls.
    """
    if accuracy > curve.accuracies_H[-1]:
        return None
    return float(np.interp(accuracy, curve.accuracies_H, curve.shares_H))


def _turns_up(first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]) -> bool:
    """Whether the middle point lies on or below the line from the first to the last."""
    return (middle[1] - first[1]) * (last[0] - first[0]) <= (last[1] - first[1]) * (middle[0] - first[0])
