"""Credit across sessions: A_i, what a session's writes to memory are worth to the sessions after it.

Sessions are trained as independent episodes on `r_i + A_i` (AGILE, Appendix A, eq. 5 and 6): A_i is the only way by
which the value of what was remembered reaches the policy. Each mode is one pure function, chosen by name.
"""

from collections.abc import Callable, Sequence

import numpy as np

from agile_ray.config import Credit
from agile_ray.types import Float32, Scores, Segment, Session, TrainingRow


def none(sessions: Sequence[Session], _: Credit) -> Float32:
    """A_i = 0: every session is an island. Returns float32 [sessions]."""
    return np.zeros(len(sessions), dtype=np.float32)


def heuristic(sessions: Sequence[Session], config: Credit) -> Float32:
    """AGILE, eq. 7, in units of the reward for a right answer. Returns float32 [sessions].

    A_i = beta * 1[N > 0] / (M + 1) for sessions that wrote memory, else 0, with N the similar questions that follow in
    the stream and M the similar ones stored before. (The paper does not say that only writers get it; without that,
    the bonus would not depend on what the session did.)
    """
    writes = np.array([bool(session.writes) for session in sessions])
    later = np.array([session.later_similar for session in sessions])
    stored = np.array([session.stored_similar for session in sessions])
    return np.where(writes & (later > 0), config.beta / (stored + 1), 0.0).astype(np.float32)


MODES: dict[str, Callable[[Sequence[Session], Credit], Float32]] = {"none": none, "heuristic": heuristic}


def assign(
    sessions: Sequence[Session], segments: Sequence[Segment], scores: Sequence[Scores], config: Credit
) -> list[TrainingRow]:
    """The credit step between cutting and learning: give every session's last segment its A_i."""
    credit = {
        (session.stream, session.position): float(amount)
        for session, amount in zip(sessions, MODES[config.mode](sessions, config), strict=True)
    }
    return [
        TrainingRow(
            segment=segment,
            scores=score,
            credit=credit[segment.stream, segment.position] if segment.last else 0.0,
        )
        for segment, score in zip(segments, scores, strict=True)
    ]
