"""Credit by a fit: V(S), the value of the rest of a stream, is linear in features of the state between two sessions.

    V(S) = sum over topics of V_topic(S)     expected rewards of the questions to come on the topic
    V_topic(S) = theta . phi(S)              phi: the share of the stream that is left, earlier questions and memory
                                             entries on the topic; see `Schema`
    A_i  = V(S_{i+1}) - V(S_{i+1} if i had written nothing)
         = theta_size + left_{i+1} theta_left*size, of i's topic, if i wrote what memory lacked
         = 0 if memory held the answer already, and after the last session of a stream

theta is fitted per topic and price by LSTD(lambda) (credit/lstd.py), over several iterations. The fit uses only the
part of a session's reward that memory contributed:

    r_i = gain if memory held the answer, else 0     gain = (mean own reward where it did) - (mean where it did not)

Example: an entry at the start of a stream (left = 1) is worth theta_size + theta_left*size; halfway (left = 0.5) it is
worth theta_size + 0.5 theta_left*size. docs/credit.md explains the choice of features and the limits of the fit.

Dimensions: S = sessions, F = features.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Self

import numpy as np

from agile_ray.config import RunConfig
from agile_ray.credit.lstd import MIN_ENDED_SHARE, Fit, Transitions
from agile_ray.errors import ConfigError
from agile_ray.types import Ending, Float64, Int64, Session

TREND = ("1", "left", "left^2", "left^3")
"""Features of the value of a stream without any memory; one set per iteration."""
MET = ("met", "left*met")
"""Features of the number of earlier questions on the topic: where it is large, more follow and memory holds more."""
ENTRY = ("size", "left*size")
"""Features of the number of memory entries on the topic."""
PRIOR = 1.0
"""Prior standard deviation of the worth of an entry, or of a question met, at the start of a stream; reward."""
PRIOR_TREND = 1e4
"""Prior standard deviation of the trend's coefficients: far beyond the length of any stream, since a tighter one would
bias the worth of entries where the data can't tell the two apart."""
TD_LAMBDA = 0.9
"""Lambda of the fit, per session."""
Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The features of one topic."""

    topic: str
    iterations: int  # fitted together

    @classmethod
    def of(cls, iterations: Sequence[Sequence[Session]], topic: str) -> Self:
        """The schema for these iterations."""
        return cls(topic=topic, iterations=len(iterations))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        trends = (f"{name} of {iteration}" for iteration in range(self.iterations) for name in TREND)
        return (*trends, *MET, *ENTRY)

    @property
    def prior(self) -> Float64:
        """Standard deviation of each coefficient before any data, float64 [F]."""
        # At the start of a stream `left` is 1: an entry is worth the sum of its two coefficients.
        return np.array([PRIOR / np.sqrt(2) if name in (*ENTRY, *MET) else PRIOR_TREND for name in self.names])


def check_windows(config: RunConfig, *, stream_length: int) -> None:
    """Refuse `fitted` credit where too few runs end with their streams, so that V has no level and credit would be 0.

    Args:
        config: of the run.
        stream_length: sessions of the longest stream in training.

    Raises:
        ConfigError: the iterations of a regression don't span a stream, or fewer than MIN_ENDED_SHARE of runs end.
    """
    each, iterations = config.loop.sessions_per_lane, config.credit.window
    needed = max(ceil(stream_length / iterations), ceil(MIN_ENDED_SHARE * stream_length))
    if config.credit.mode == "fitted" and config.loop.iterations and each < needed:
        raise ConfigError(
            f"credit.mode: fitted learns from the ends of streams, so credit.window ({iterations}) iterations of "
            f"loop.sessions_per_lane ({each}) sessions must span a stream, and an iteration at least "
            f"{MIN_ENDED_SHARE:.0%} of it; found streams of {stream_length} sessions; set "
            f"loop.sessions_per_lane={needed} or more{_longer_window(each, stream_length)}, or credit.mode=linked, "
            "which works with any window"
        )


def _longer_window(each: int, stream_length: int) -> str:
    enough = each >= MIN_ENDED_SHARE * stream_length
    return f", or credit.window={ceil(stream_length / each)} or more" if enough else ""


def metrics(fit: Fit, schema: Schema, *, suffix: str = "") -> dict[str, float]:
    """Worth of an entry on the topic at the start of a stream, reward, with its 95 % interval (1.96 deviations).

    Args:
        fit: to the sessions.
        schema: of the fit.
        suffix: of the metrics' names, after the topic.
    """
    entry = np.array([float(name in ENTRY) for name in schema.names])
    worth, deviation = entry @ fit.theta, np.sqrt(max(entry @ fit.covariance @ entry, 0.0))
    return {
        f"credit_worth/{schema.topic}{suffix}": float(worth),
        f"credit_worth_low/{schema.topic}{suffix}": float(worth - Z_95 * deviation),
        f"credit_worth_high/{schema.topic}{suffix}": float(worth + Z_95 * deviation),
    }


def topics(iterations: Sequence[Sequence[Session]]) -> list[str]:
    """Topics on which something was written, so that an entry's worth can be fitted."""
    return sorted({session.topic for sessions in iterations for session in sessions if session.writes})


def transitions(iterations: Sequence[Sequence[Session]], schema: Schema) -> Transitions:
    """Features and rewards of every session that did not fail; a gap in a stream ends a run."""
    given = [(number, session) for number, sessions in enumerate(iterations) for session in sessions]

    def key(index: int) -> tuple[int, str, int]:
        return given[index][0], given[index][1].stream, given[index][1].position

    kept = sorted((i for i, (_, session) in enumerate(given) if session.ending is not Ending.FAILED), key=key)
    runs = _runs([key(index) for index in kept])
    chosen = [given[index] for index in kept]
    gains = [_gain(sessions, schema.topic) for sessions in iterations]
    known = np.array([one.hindsight.known for _, one in chosen], dtype=np.bool_)
    gained = known & np.array([one.topic == schema.topic for _, one in chosen], dtype=np.bool_)
    numbers = np.array([number for number, _ in chosen], dtype=np.int64)
    met = _met(given, schema.topic)
    width = len(schema.names)

    def state(index: int, *, done: int, wrote: bool) -> list[float]:
        number, session = given[index]
        return _features(session, schema, number, met=int(met[index]), done=done, wrote=wrote)

    features = _stack([state(index, done=0, wrote=False) for index in kept], width)
    after = _stack([state(index, done=1, wrote=bool(given[index][1].writes)) for index in kept], width)
    without = _stack([state(index, done=1, wrote=False) for index in kept], width)
    following = after.copy()
    continued = np.flatnonzero(np.diff(runs) == 0)
    following[continued] = features[continued + 1]  # the next session's own features
    return Transitions(
        features=features,
        following=following,
        added=np.where(known[:, None], 0.0, after - without),
        rewards=gained.astype(np.float64) * np.array([mean for mean, _ in gains])[numbers],
        deviations=gained[:, None].astype(np.float64) * np.diag([deviation for _, deviation in gains])[numbers],
        streams=np.array(runs, dtype=np.int64),
        indices=np.array(kept, dtype=np.int64),
    )


def _runs(keys: Sequence[tuple[int, str, int]]) -> list[int]:
    """Number of the run of each session, given (iteration, stream, position) in order."""
    runs: list[int] = []
    before = None
    for iteration, stream, position in keys:
        follows = before == (iteration, stream, position - 1)
        runs.append(runs[-1] + (not follows) if runs else 0)
        before = iteration, stream, position
    return runs


def _features(session: Session, schema: Schema, iteration: int, *, met: int, done: int, wrote: bool) -> list[float]:
    """phi(S_i) for done = 0, phi(S_{i+1}) for done = 1."""
    if session.position + done == session.stream_length:
        return [0.0] * len(schema.names)
    left = 1.0 - (session.position + done) / session.stream_length
    on_topic = session.topic == schema.topic
    trends = [0.0] * (len(TREND) * schema.iterations)
    trends[len(TREND) * iteration : len(TREND) * (iteration + 1)] = [1.0, left, left**2, left**3]
    met += done * on_topic
    size = session.hindsight.memory_sizes.get(schema.topic, 0) + (wrote and on_topic)
    return [*trends, met, left * met, size, left * size]


def _met(given: Sequence[tuple[int, Session]], topic: str) -> Int64:
    """Number of earlier questions on the topic in each session's stream, without failed sessions, int64 [S]."""
    met, counts = np.zeros(len(given), dtype=np.int64), Counter[str]()
    for index in sorted(range(len(given)), key=lambda index: given[index][1].position):
        session = given[index][1]
        met[index] = counts[session.stream]
        counts[session.stream] += session.topic == topic and session.ending is not Ending.FAILED
    return met


def _gain(sessions: Sequence[Session], topic: str) -> tuple[float, float]:
    """How much more a session on the topic earns if memory holds its answer, and the estimate's standard deviation."""
    on_topic = [one for one in sessions if one.topic == topic and one.ending is not Ending.FAILED]
    known = [one.own_reward for one in on_topic if one.hindsight.known]
    unknown = [one.own_reward for one in on_topic if not one.hindsight.known]
    if not known or not unknown:
        return 0.0, 0.0
    variance = np.var(known) / len(known) + np.var(unknown) / len(unknown)
    return float(np.mean(known) - np.mean(unknown)), float(np.sqrt(variance))


def _stack(states: Sequence[Sequence[float]], width: int) -> Float64:
    return np.array(states, dtype=np.float64).reshape(len(states), width)


def fitted(steps: Transitions, fit: Fit, *, sessions: int) -> Float64:
    """Compute A_i = V(S_{i+1}) - V(S_{i+1} without what i wrote).

    Args:
        steps: of all sessions.
        fit: to the same steps.
        sessions: S, the number of sessions given to `transitions`.

    Returns:
        float64 [S], reward; 0 for sessions that failed, wrote nothing, or whose answer memory held before, and for the
        last of a stream.
    """
    amounts = np.zeros(sessions)
    amounts[steps.indices] = steps.added @ fit.theta
    return amounts
