"""Selective prediction: does the policy ask where its own answer would be wrong?

A session that asked does not show what the policy would have answered. In sampled play, chance decides: the sessions
that did not ask stand for those that did, each with the weight 1 / (probability of not asking), which keeps every
expected value (Horvitz and Thompson, 1952). Greedy play has no such weights.

Dimensions: N = sessions.
"""

import math
from collections.abc import Sequence

import numpy as np

from agile_ray.types import Float64, Session


def augrc(confidences_N: Float64, losses_N: Float64) -> float:
    """Compute the area under the generalized risk-coverage curve (Traub et al., 2024, arXiv 2407.01032, eq. 6).

    At each threshold, the generalized risk is the loss of the sessions whose confidence is at least the threshold,
    divided by the number of all sessions; the coverage is their share. The area is the mean loss that slips through a
    random threshold. Sessions of equal confidence are accepted together, and the curve is a straight line across them.

    Args:
        confidences_N: float64 [N], of answering alone; only their order counts.
        losses_N: float64 [N], 0 for a right answer and 1 for a wrong one, times the weight of the session.

    Returns:
        the area; 0.0 is best, half of the mean loss is what a random order reaches.
    """
    _, groups_N = np.unique(-confidences_N, return_inverse=True)
    coverages = np.cumsum(np.bincount(groups_N)) / len(losses_N)
    risks = np.cumsum(np.bincount(groups_N, weights=losses_N)) / len(losses_N)
    return float(np.trapezoid(np.append(0.0, risks), np.append(0.0, coverages)))


def ask_probability(session: Session) -> float | None:
    """The policy's own probability that the session asks, in [0, 1]: at any turn up to the first ask.

    Returns:
        1 - prod(1 - p_t) over these turns; None if a turn has no probability, as in sessions of scripts or of files
        before schema 4.
    """
    unaided = 1.0
    for turn in session.turns:
        unaided *= 1 - turn.ask_probability
        if (turn.rewards < 0).any():  # it asked, and paid
            break
    return None if not session.turns or math.isnan(unaided) else 1 - unaided


def sampled_augrc(sessions: Sequence[Session]) -> float | None:
    """AUGRC of sampled sessions by the probability of asking; a session that asked is represented by the others.

    Args:
        sessions: that did not fail, with their turns.

    Returns:
        None if there is no session, or one has no probability of asking.
    """
    known = [(session, p) for session in sessions if (p := ask_probability(session)) is not None]
    if not known or len(known) < len(sessions):
        return None
    confidences = np.array([1 - p for _, p in known])
    wrong = np.array([not (session.asks or session.correct) for session, _ in known], np.float64)
    weights = np.divide(wrong, confidences, out=np.zeros_like(wrong), where=wrong > 0)
    return augrc(confidences, weights)
