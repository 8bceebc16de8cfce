"""Credit beyond the collected sessions: what the readers of a write that are still to come are expected to gain.

An iteration may collect only a window of each stream. The stream's questions are known in training, so the number n of
later questions on the writer's item after the window is known too. Their sessions add

    A_i += lacking_i * g * sum over j < n of (1 - p)^j      if memory lacked the item before i

    lacking_i   probability that the world without i's entry still lacks one at the window's end: the product of
                1 - p_l over i's readers l inside the window, as in credit/linked.py
    g           mean gain, on the writer's topic and at its price, of a session whose item memory held: r_k - V_own(x_k)
                if it read the entry of the first session on the item that it found, 0 if it read none
    p           mean probability, at those prefixes x_k, that the session writes an entry itself

g and p are means over this iteration and the earlier ones, each iteration with half the weight of the next. Writers of
any age give evidence, also those that an earlier iteration collected, or whose entries a script wrote. g is shrunk
towards 0 by N / (N + 20), for N sessions. The result is exact where sessions on a topic, at a price,
gain alike; see docs/credit.md.

Rewards, gains and credit are in units of the reward for a right answer.

Dimensions: S = sessions of one iteration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.credit.linked import Imagined
from agile_ray.types import LONG_COUNTERFACTUAL, Ending, Float64, Int64, Session

SHRINKAGE = 20.0
"""Sessions at which the mean gain is shrunk to half."""
KEPT = 0.5
"""Share of the weight that an iteration's evidence keeps in the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one session gained because memory held its item: evidence for g and p."""

    group: str  # its topic and price
    gain: float  # 0 if it did not read the entry
    write_probability: float | None  # p_k at the prefix without the entry; None if it did not read the entry
    outside: bool  # no session of the iteration wrote what memory held


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Weighted sums over the readings of one topic at one price."""

    sessions: float = 0.0
    gain: float = 0.0
    read: float = 0.0  # sessions that read the entry
    write_probability: float = 0.0  # over those

    @property
    def certainty(self) -> float:
        """N / (N + SHRINKAGE), in [0, 1)."""
        return self.sessions / (self.sessions + SHRINKAGE)

    @property
    def mean_gain(self) -> float:
        """g, shrunk."""
        return self.gain / (self.sessions + SHRINKAGE)

    @property
    def mean_write_probability(self) -> float:
        """p; 0 without evidence."""
        return self.write_probability / self.read if self.read else 0.0


Outlook = Mapping[str, Sums]
"""What is known about later readers, by topic and price (`_group`)."""


def readings(sessions: Sequence[Session], imagined: Sequence[Imagined]) -> list[Reading]:
    """Collect the evidence of every session whose item memory held.

    Left out: failed sessions, and those whose only prefix without the entry was too long to be kept.

    Args:
        sessions: S of one iteration.
        imagined: their counterfactuals, with scores.
    """
    wrote = {(session.stream, session.position) for session in sessions if session.writes}
    without: dict[int, Imagined] = {}  # by reader: the prefix without the first session on the item
    for one in imagined:
        if one.alone in sessions[one.reader].hindsight.same_item:
            without.setdefault(one.reader, one)
    found: list[Reading] = []
    for index, session in enumerate(sessions):
        one = without.get(index)
        lost = one is None and LONG_COUNTERFACTUAL in session.remarks
        if session.ending is Ending.FAILED or not session.hindsight.known or lost:
            continue
        earlier = (position for position in session.hindsight.same_item if position < session.position)
        found.append(
            Reading(
                group=_group(session),
                gain=0.0 if one is None else session.own_reward - one.own_value,
                write_probability=None if one is None else one.write_probability,
                outside=not any((session.stream, position) in wrote for position in earlier),
            )
        )
    return found


def updated(outlook: Outlook, found: Sequence[Reading]) -> dict[str, Sums]:
    """Give earlier evidence less weight, and add that of one iteration."""
    groups = outlook.keys() | {one.group for one in found}
    return {
        group: _added(outlook.get(group, Sums()), [one for one in found if one.group == group])
        for group in sorted(groups)
    }


def _added(sums: Sums, found: Sequence[Reading]) -> Sums:
    write_probabilities = [one.write_probability for one in found if one.write_probability is not None]
    return Sums(
        sessions=KEPT * sums.sessions + len(found),
        gain=KEPT * sums.gain + sum(one.gain for one in found),
        read=KEPT * sums.read + len(write_probabilities),
        write_probability=KEPT * sums.write_probability + sum(write_probabilities),
    )


def tail(sessions: Sequence[Session], outlook: Outlook, lacking: Float64) -> Float64:
    """Compute the credit for readers after the collected sessions, float64 [S].

    Args:
        sessions: S of one iteration.
        outlook: evidence, that of this iteration included.
        lacking: float64 [S], probability that the world without the session's entries still lacks them.
    """
    _, outside = _later(sessions)
    amounts = np.zeros(len(sessions))
    for index, session in enumerate(sessions):
        if _adds(session):
            sums = _sums(outlook, session)
            amounts[index] = lacking[index] * sums.mean_gain * _weight(0, int(outside[index]), sums)
    return amounts


def metrics(
    sessions: Sequence[Session],
    *,
    before: Outlook,
    outlook: Outlook,
    found: Sequence[Reading],
    window: Float64,
    beyond: Float64,
) -> dict[str, float]:
    """Describe the tail, by the names in record/metrics.py.

    Args:
        sessions: S of one iteration.
        before: evidence of earlier iterations.
        outlook: the same with this iteration's.
        found: this iteration's.
        window: float64 [S], credit for readers among the sessions.
        beyond: float64 [S], `tail`.
    """
    came = [one for one in found if one.outside and one.group in before]
    errors = [before[one.group].mean_gain - one.gain for one in came]
    sums = abs(float(window.sum())), abs(float(beyond.sum()))
    described = {
        "credit_tail": sums[1] / sum(sums) if any(sums) else 0.0,
        "credit_truncated": _truncated(sessions, outlook),
    }
    return described | ({"credit_tail_error": float(np.mean(errors))} if errors else {})


def _truncated(sessions: Sequence[Session], outlook: Outlook) -> float:
    """Share of the expected credit that shrinkage takes, if later readers gain alike whatever their topic."""
    inside, outside = _later(sessions)
    missing = expected = 0.0
    for session, near, far in zip(sessions, inside.tolist(), outside.tolist(), strict=True):
        if _adds(session):
            sums = _sums(outlook, session)
            missing += (1.0 - sums.certainty) * _weight(near, near + far, sums)
            expected += _weight(0, near + far, sums)
    return missing / expected if expected else 0.0


def _later(sessions: Sequence[Session]) -> tuple[Int64, Int64]:
    """Number of later questions on each session's item among the collected sessions of its stream, and after them."""
    ends: dict[str, int] = {}
    for session in sessions:
        ends[session.stream] = max(ends.get(session.stream, 0), session.position + 1)
    later = [[one for one in session.hindsight.same_item if one > session.position] for session in sessions]
    outside = [sum(one >= ends[session.stream] for one in ones) for session, ones in zip(sessions, later, strict=True)]
    return np.array([len(ones) for ones in later], dtype=np.int64) - outside, np.array(outside, dtype=np.int64)


def _weight(first: int, end: int, sums: Sums) -> float:
    """Sum over j from `first` to `end` - 1 of (1 - p)^j."""
    return float(np.sum((1.0 - sums.mean_write_probability) ** np.arange(first, end)))


def _sums(outlook: Outlook, session: Session) -> Sums:
    return outlook.get(_group(session), Sums())


def _group(session: Session) -> str:
    return f"{session.topic} at {session.price}"


def _adds(session: Session) -> bool:
    """Whether memory holds the session's item because of it. A failed session has taken back what it wrote."""
    return bool(session.writes) and not session.hindsight.known
