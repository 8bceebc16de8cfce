"""LSTD(lambda) with shrinkage and cluster-robust covariance: the regression behind `fitted` credit."""

from dataclasses import dataclass

import numpy as np

from agile_ray.types import Float64, Int64

LEAST_NOISE = 0.01
"""Least n: where rewards hold no chance at all, the prior still counts."""


ENDED = 0.05
"""Share of runs. In a linear world whose other streams were cut at three quarters, an entry worth 0.6 was found worth
0.55 to 0.67 where one in ten ended, 0.57 to 0.97 (its interval held 0.6) at 3 %, and up to 1.6 where none did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """From each session's state to the next one's; sessions of one stream stand side by side, in order.

    The trend of a session is that of its iteration; a stream that goes on in the next iteration begins a run there.
    """

    features: Float64  # [S, F], phi(S_i)
    following: Float64  # [S, F], phi(S_{i+1}), 0 behind the end of the stream
    added: Float64  # [S, F], phi(S_{i+1}) minus what it would be had the session written nothing; 0 where it was known
    rewards: Float64  # [S], what memory had to do with it: the gain, or 0; 0 for sessions on another topic
    deviations: Float64  # [S, I], of that; sessions of one iteration I are off together
    streams: Int64  # [S], equal for sessions that follow one another
    places: Int64  # [S], of the session among all that were given, iteration after iteration


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The coefficients and what is known of them."""

    theta: Float64  # [F]
    covariance: Float64  # [F, F]


def fit(steps: Transitions, *, prior: Float64, decay: float) -> Fit:
    """LSTD(lambda) with shrinkage; see the module.

    Args:
        prior: float64 [F], standard deviation of each coefficient before any data, reward per unit of its feature.
        decay: lambda, per session, in [0, 1].

    Returns:
        theta and Cov; 0 and diag(prior^2) where fewer runs than ENDED end with their streams.
    """
    count, streams = len(prior), len(np.unique(steps.streams))
    traces = _traces(steps, decay)
    matrix = traces.T @ (steps.features - steps.following)
    target = traces.T @ steps.rewards
    if _ended_share(steps) < ENDED:
        return Fit(theta=np.zeros(count), covariance=np.diag(prior**2))
    precision = np.diag(1.0 / prior**2)
    shared = traces.T @ steps.deviations
    moments = traces.T @ traces
    noise = _noise(moments, matrix, steps)
    theta = _solve(matrix + noise * precision, target)
    for _ in range(3 if streams > count else 0):  # the noise and the fit are told from one another, and settle at once
        td_errors = steps.rewards + (steps.following - steps.features) @ theta
        moments = _moments(traces * td_errors[:, None], steps.streams) * (streams / (streams - count))
        moments += shared @ shared.T
        noise = _noise(moments, matrix, steps)
        theta = _solve(matrix + noise * precision, target)
    inverse = np.linalg.inv(matrix + noise * precision)
    covariance = inverse @ (moments + noise**2 * precision) @ inverse.T
    return Fit(theta=theta, covariance=covariance)


def _traces(steps: Transitions, decay: float) -> Float64:
    traces = steps.features.copy()
    for place in range(1, len(traces)):
        if steps.streams[place] == steps.streams[place - 1]:
            traces[place] += decay * traces[place - 1]
    return traces


def _scale(steps: Transitions) -> Float64:
    """Root mean square of each feature, so that no unit weighs more than another; 1 where it is always 0."""
    size = np.sqrt(np.mean(steps.features**2, axis=0)) if len(steps.features) else np.ones(steps.features.shape[1])
    return np.where(size > 0.0, size, 1.0)


def _ended_share(steps: Transitions) -> float:
    """Share of the runs that end with their stream."""
    last = np.flatnonzero(np.diff(steps.streams, append=-1))
    return float(np.mean(~steps.following[last].any(axis=1))) if len(last) else 0.0


def _solve(matrix: Float64, target: Float64) -> Float64:
    return np.asarray(np.linalg.solve(matrix, target), dtype=np.float64)


def _noise(moments: Float64, matrix: Float64, steps: Transitions) -> float:
    """Noise per unit of information."""
    squares = _scale(steps) ** 2
    information = float(np.sum(np.diag(matrix) / squares))
    return max(float(np.sum(np.diag(moments) / squares)) / information, LEAST_NOISE) if information > 0.0 else 1.0


def _moments(terms: Float64, streams: Int64) -> Float64:
    """Sum over streams of u u^T, with u the sum of a stream's terms."""
    sums = np.zeros((int(streams.max()) + 1 if len(streams) else 0, terms.shape[1]))
    np.add.at(sums, streams, terms)
    return sums.T @ sums
