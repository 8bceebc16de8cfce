"""The baseline of credit: its expectation before the session acts."""

from collections.abc import Sequence

import numpy as np

from agile_ray.types import Ending, Float64, Session

MIN_SESSIONS_FOR_FIT = 20
"""With fewer alike sessions, the baseline is their mean instead of a fitted plane."""


def credit_baseline(sessions: Sequence[Session], amounts: Float64) -> Float64:
    """Expected credit of each session, from those on its topic, at its price, that found memory alike.

    Alike: memory held the answer for both, or for neither. The expectation is the least-squares plane over two
    features: the share of the stream that is left, and N / (N + 1) with N similar questions that follow. Both are
    independent of what the session does, so subtracting the baseline keeps the gradient unbiased, except for a
    session's own share in the fit; see docs/credit.md, and Mao et al. (2019) on input-dependent baselines.

    Args:
        sessions: S of one iteration.
        amounts: float64 [S], A_i.

    Returns:
        float64 [S].
    """
    left = np.array([1.0 - session.position / session.stream_length for session in sessions])
    later = np.array([session.hindsight.later_similar for session in sessions], dtype=np.float64)
    features = np.stack([np.ones_like(left), left, later / (later + 1.0)], axis=1)
    trained = np.array([session.ending is not Ending.FAILED for session in sessions])
    kinds = [(session.topic, session.price, session.hindsight.known) for session in sessions]
    baseline = np.zeros(len(sessions))
    for kind in set(kinds):
        alike = np.array([one == kind for one in kinds])
        seen = alike & trained
        used = features if seen.sum() >= MIN_SESSIONS_FOR_FIT else features[:, :1]
        if seen.any():
            baseline[alike] = used[alike] @ np.linalg.lstsq(used[seen], amounts[seen])[0]
    return baseline
