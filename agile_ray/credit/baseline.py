"""The baseline of credit: what a session could expect before it acts."""

from collections.abc import Sequence

import numpy as np

from agile_ray.types import Ending, Float64, Session

FEW = 20
"""Sessions below which a mean is all that can be told of them."""


def usual(sessions: Sequence[Session], amounts: Float64) -> Float64:
    """What credit each session could expect, from those on its topic that found memory alike.

    Alike: memory held the answer for both, or for neither. Among them it is the least-squares plane over what is left
    of the stream and over N / (N + 1), N similar questions that follow; their mean where they are few. N, since most of
    what credit varies by is whether anyone will ask again; as a share, since of many readers the later count for less.

    Neither hangs on what a session does: questions come as they come. So, with ppo.gae_lambda at 1, it
    changes no gradient on average, though the policy does not know N (a baseline may look at the whole input process:
    Mao et al., 2019), but for the share that a session's own credit has in the fit: of n sessions alike, credit counts
    (n - 3) / n on average, (n - 1) / n for a mean, and so nothing where one stands alone. And it is right from the
    first update on, also when credit changes.

    Args:
        amounts: float64 [S], A_i.

    Returns:
        float64 [S].
    """
    left = np.array([1.0 - session.position / session.stream_length for session in sessions])
    later = np.array([session.hindsight.later_similar for session in sessions], dtype=np.float64)
    features = np.stack([np.ones_like(left), left, later / (later + 1.0)], axis=1)
    trained = np.array([session.ending is not Ending.FAILED for session in sessions])
    kinds = [(session.topic, session.hindsight.known) for session in sessions]
    expected = np.zeros(len(sessions))
    for kind in set(kinds):
        alike = np.array([one == kind for one in kinds])
        seen = alike & trained
        used = features if seen.sum() >= FEW else features[:, :1]
        if seen.any():
            expected[alike] = used[alike] @ np.linalg.lstsq(used[seen], amounts[seen])[0]
    return expected
