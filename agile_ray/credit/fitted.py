"""Credit by a fit: V(S), what a stream is still worth, as a linear function of the state between two sessions.

    V(S) = sum over topics of V_topic(S)     what is still to come from questions on the topic, reward
    V_topic(S) = theta . phi(S)              phi: what is left of the stream, how many questions on the topic came, how
                                             much memory holds on it, and the price where prices differ; see `Schema`
    A_i  = V(S_{i+1}) - V(S_{i+1} had i written nothing)
         = theta_size + left_{i+1} theta_left*size, of i's topic, if i wrote what memory lacked
         = 0 if memory held the answer already, and behind the last session

The environment declares topics (`Question.topic`) so that what is remembered on one serves the questions on it. So
each topic is a fit of its own, on the rewards of its own sessions. Of a reward it sees what memory has to do with it:

    r_i = gain if memory held the answer, else 0     gain = (mean own reward where it did) - (mean where it did not)

both over the topic's sessions of that iteration; 0 where one of the two has none. The rest is the luck of a guess, and
how the policy was sampled: it hangs on nothing in S. On stored sessions of the shop (48 fits, four topics) what an
entry is worth had 1.9 times the deviation with it (median; 1.0 to 6.2). What this can't see: what memory does where it
lacks the answer.

Streams differ in what they ask about. Where many questions on a topic came, many are still to come, and memory holds
many entries, none of which brought them: so what came counts beside what is held. In the shop, under a policy that
asks 0.1 to 0.4 of what is new, entries then get 0.83 to 0.98 of what they are worth (measured; tests/test_fitted.py
holds 0.75 to 1.1). Under one
that asks 0.9, what came and what is held are nearly one: 0.4 to 1.2 by topic, and 1.5 to 1.7 if what came is left out;
there the interval, which knows chance but not what the features leave out, may miss the truth.

The sizes don't tell a second entry on an item from one on a new item, but i's session does: what asks again although
memory has the answer adds nothing, and were it paid like a new entry, that would be worth asking for wherever an entry
is worth more than advice costs. The few there are still count as entries when V is fitted, and so take from its slope.
Who puts wrong advice right gets nothing either: the fit takes all advice for right.

An entry's worth falls with what is left of the stream where its readers come at any time. It stays the same to the end
where all is asked at first sight: then V = sessions left - price * items not yet known. So both have a coefficient. The
second case needs the constant in the trend: without it, the sizes stand in for one, and come out near 0.

Several iterations are fitted at once, and between them the policy changed. So each has a trend of its own: with one for
all, an iteration that asks more and so remembers more would lend its level, good or bad, to what entries are worth.

theta solves the projected Bellman equation of session-level TD(lambda) (LSTD(lambda), Boyan 2002): with those rewards
r_i, phi' = phi(S_{i+1}), phi = 0 behind the end of a stream, and traces z_i = lambda z_{i-1} + phi_i,

    theta = (M + n P)^-1 b      M = sum z_i (phi_i - phi'_i)^T      b = sum z_i r_i

P = diag(1 / prior^2) shrinks each theta towards 0. The covariance counts streams, not sessions, as independent (a
cluster-robust sandwich; a stream that goes on in the next iteration counts there again), and the prior as what it is:

    Cov = (M + n P)^-1 (sum over streams of u u^T + n^2 P) (M + n P)^-T
    u   = sum over a stream of z_i (r_i + theta phi'_i - theta phi_i)

scaled up by G / (G - F) for G streams; then, unscaled, for each iteration one more u u^T, u the deviation of its gain
times the sum of z_i over those who had it. n is the noise per unit of information, tr(sum u u^T) / tr(M), features
measured by their size, and LEAST_NOISE at least; 1 where tr(M) is not above 0. Where G is F or fewer neither says
anything, and rewards of variance 1 stand in: sum z z^T.
Where the data can't tell a theta (once asking is deterministic, what memory holds may be a function of the place in
the stream), its interval is that of the prior, and so says it.

Behind the end of a stream V is 0, and that ties it down. Where a run is cut off inside a stream, what was left there is
V's own word, and takes phi' phi'^T / 2 times 1 + lambda + ... + lambda^(m-1) from the symmetric part of M, m sessions
in the run; that part has to be positive for P to shrink anything.
While no stream has ended, theta runs off (an entry of the shop was found worth -50 to 350). So where fewer runs than
ENDED end with their streams, the answer is the prior's: 0, with its interval.

How often memory was hit is left out on purpose: hits are how entries come to be worth something, and held constant they
would hide it (where all that is new is asked, sessions = entries + hits, and nothing could be told apart).

Dimensions: S = sessions, F = features.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from agile_ray.credit.lstd import Fit, Transitions
from agile_ray.types import Ending, Float64, Int64, Session

TREND = ("1", "left", "left^2", "left^3")
"""What a stream is worth without any memory, at least near any place of it."""
MET = ("met", "left*met")
"""How many questions on the topic the stream had so far: where there were many, more come, and memory holds more."""
ENTRY = ("size", "left*size")
"""What an entry adds to."""
PRIOR = 1.0
"""Standard deviation of what an entry, or a question met, is worth at a stream's start, before any data; reward."""
PRIOR_TREND = 1e4
"""Of the coefficients of the trend: far beyond the length of any stream, or else it would pull on what entries are
worth where the data can't tell the two apart."""
TD_LAMBDA = 0.9
"""Lambda of LSTD, per session."""
Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What the features of one topic are."""

    topic: str
    priced: bool  # prices differ, so they are a feature
    iterations: int  # that are fitted at once

    @classmethod
    def of(cls, iterations: Sequence[Sequence[Session]], topic: str) -> Self:
        """Look whether prices differ."""
        prices = {session.price for sessions in iterations for session in sessions}
        return cls(topic=topic, priced=len(prices) > 1, iterations=len(iterations))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, in order."""
        price = ("left*price",) if self.priced else ()
        trends = (f"{name} of {iteration}" for iteration in range(self.iterations) for name in TREND)
        return (*trends, *MET, *price, *ENTRY)

    @property
    def prior(self) -> Float64:
        """Standard deviation of each coefficient before any data, float64 [F]."""
        # At the start of a stream `left` is 1: an entry is worth the sum of its two.
        return np.array([PRIOR / np.sqrt(2) if name in (*ENTRY, *MET) else PRIOR_TREND for name in self.names])


def metrics(fit: Fit, schema: Schema) -> dict[str, float]:
    """What an entry on the topic is worth at the start of a stream, reward, with the ends of its 95 % interval:
    1.96 standard deviations to either side."""
    entry = np.array([float(name in ENTRY) for name in schema.names])
    worth, deviation = entry @ fit.theta, np.sqrt(max(entry @ fit.covariance @ entry, 0.0))
    return {
        f"credit_worth/{schema.topic}": float(worth),
        f"credit_worth_low/{schema.topic}": float(worth - Z_95 * deviation),
        f"credit_worth_high/{schema.topic}": float(worth + Z_95 * deviation),
    }


def topics(iterations: Sequence[Sequence[Session]]) -> list[str]:
    """Those on which something was written: what has a worth to be fitted."""
    return sorted({session.topic for sessions in iterations for session in sessions if session.writes})


def transitions(iterations: Sequence[Sequence[Session]], schema: Schema) -> Transitions:
    """Features of every session that did not fail; a gap in a stream ends a run."""
    given = [(number, session) for number, sessions in enumerate(iterations) for session in sessions]

    def at(place: int) -> tuple[int, str, int]:
        return given[place][0], given[place][1].stream, given[place][1].position

    kept = sorted((p for p, (_, session) in enumerate(given) if session.ending is not Ending.FAILED), key=at)
    streams, before = [], None
    for place in kept:
        follows = before is not None and at(place) == (*before[:2], before[2] + 1)
        streams.append(streams[-1] + (not follows) if streams else 0)
        before = at(place)
    chosen = [given[place] for place in kept]
    gains = [_gain(sessions, schema.topic) for sessions in iterations]
    known = np.array([one.hindsight.known for _, one in chosen], dtype=np.bool_)
    held = known & np.array([one.topic == schema.topic for _, one in chosen], dtype=np.bool_)
    numbers = np.array([number for number, _ in chosen], dtype=np.int64)
    met = _met(given, schema.topic)
    width = len(schema.names)

    def state(place: int, *, done: int, wrote: bool) -> list[float]:
        number, session = given[place]
        return _features(session, schema, number, met=int(met[place]), done=done, wrote=wrote)

    features = _stack([state(place, done=0, wrote=False) for place in kept], width)
    behind = _stack([state(place, done=1, wrote=bool(given[place][1].writes)) for place in kept], width)
    without = _stack([state(place, done=1, wrote=False) for place in kept], width)
    following = behind.copy()
    seen = np.flatnonzero(np.diff(streams) == 0)  # the next session tells better: its price may be another
    following[seen] = features[seen + 1]
    return Transitions(
        features=features,
        following=following,
        added=np.where(known[:, None], 0.0, behind - without),
        rewards=held.astype(np.float64) * np.array([mean for mean, _ in gains])[numbers],
        deviations=held[:, None].astype(np.float64) * np.diag([deviation for _, deviation in gains])[numbers],
        streams=np.array(streams, dtype=np.int64),
        places=np.array(kept, dtype=np.int64),
    )


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
    price = [left * session.price / 1000] if schema.priced else []
    return [*trends, met, left * met, *price, size, left * size]


def _met(given: Sequence[tuple[int, Session]], topic: str) -> Int64:
    """Questions on the topic that each session's stream had before it, as far as given and not failed, int64 [S]."""
    met, counts = np.zeros(len(given), dtype=np.int64), Counter[str]()
    for place in sorted(range(len(given)), key=lambda place: given[place][1].position):
        session = given[place][1]
        met[place] = counts[session.stream]
        counts[session.stream] += session.topic == topic and session.ending is not Ending.FAILED
    return met


def _gain(sessions: Sequence[Session], topic: str) -> tuple[float, float]:
    """What a session on the topic earns more where memory holds its answer, and the deviation of that estimate."""
    on_topic = [one for one in sessions if one.topic == topic and one.ending is not Ending.FAILED]
    held = [one.own_reward for one in on_topic if one.hindsight.known]
    lacking = [one.own_reward for one in on_topic if not one.hindsight.known]
    if not held or not lacking:
        return 0.0, 0.0
    variance = np.var(held) / len(held) + np.var(lacking) / len(lacking)
    return float(np.mean(held) - np.mean(lacking)), float(np.sqrt(variance))


def _stack(rows: Sequence[Sequence[float]], width: int) -> Float64:
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)


def fitted(steps: Transitions, fit: Fit, *, sessions: int) -> Float64:
    """A_i = V(S_{i+1}) - V(S_{i+1} without what i wrote).

    Args:
        sessions: S, how many were given to `transitions`.

    Returns:
        float64 [S], reward; 0 for sessions that failed, wrote nothing, or whose answer memory held before, and for the
        last of a stream.
    """
    amounts = np.zeros(sessions)
    amounts[steps.places] = steps.added @ fit.theta
    return amounts
