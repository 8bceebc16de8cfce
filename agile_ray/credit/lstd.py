"""LSTD(lambda) with shrinkage and a cluster-robust covariance (Boyan, 2002): the regression of `fitted` credit.

    z_i   = lambda z_{i-1} + phi_i                                    traces; they restart in each run
    M     = sum z_i (phi_i - phi'_i)^T      b = sum z_i r_i           phi' the next state, 0 after the end of a stream
    theta = (M + n P)^-1 b                  P = diag(1 / prior^2)
    Cov   = (M + n P)^-1 (U + n^2 P) (M + n P)^-T
    U     = sum over streams of u u^T, u = sum over a stream of z_i (r_i + theta phi'_i - theta phi_i)

n is the noise per unit of information, tr(U) / tr(M) with features scaled to size 1. docs/credit.md has the details.

Dimensions: S = sessions, F = features, I = iterations. A run is a part of a stream without a gap, in one iteration.
"""

from dataclasses import dataclass

import numpy as np

from agile_ray.types import Float64, Int64

MIN_NOISE = 0.01
"""Lower bound of n, so that the prior counts even where rewards are not random."""
MIN_ENDED_SHARE = 0.05
"""Share of runs that must reach the end of their stream. With fewer, V is barely determined and theta diverges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """From each session's state to the next one's; sessions of one stream are adjacent, in order.

    Trend features belong to one iteration, so a stream that continues in the next iteration starts a new run there.
    """

    features: Float64  # [S, F], phi(S_i)
    following: Float64  # [S, F], phi(S_{i+1}), 0 after the end of the stream
    added: Float64  # [S, F], phi(S_{i+1}) minus its value if i had written nothing; 0 if memory held the answer
    rewards: Float64  # [S], the gain from memory, or 0; 0 for sessions on another topic
    deviations: Float64  # [S, I], standard deviation of the gain, an error that an iteration's sessions share
    streams: Int64  # [S], number of the run: equal for sessions that follow one another
    indices: Int64  # [S], of the session among all that were given, iteration after iteration


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The coefficients and their covariance."""

    theta: Float64  # [F]
    covariance: Float64  # [F, F]


def fit(steps: Transitions, *, prior: Float64, td_lambda: float) -> Fit:
    """Fit theta; see the module.

    Args:
        steps: the sessions to fit.
        prior: float64 [F], standard deviation of each coefficient before any data, reward per unit of its feature.
        td_lambda: lambda, per session, in [0, 1].

    Returns:
        theta and Cov; 0 and diag(prior^2) if fewer runs than MIN_ENDED_SHARE end with their streams.
    """
    count, streams = len(prior), len(np.unique(steps.streams))
    traces = _traces(steps, td_lambda)
    matrix = traces.T @ (steps.features - steps.following)
    target = traces.T @ steps.rewards
    if _ended_share(steps) < MIN_ENDED_SHARE:
        return Fit(theta=np.zeros(count), covariance=np.diag(prior**2))
    precision = np.diag(1.0 / prior**2)
    shared = traces.T @ steps.deviations
    moments = traces.T @ traces
    noise = _noise(moments, matrix, steps)
    theta = _solve(matrix + noise * precision, target)
    for _ in range(3 if streams > count else 0):  # noise and theta depend on each other; three rounds suffice
        td_errors = steps.rewards + (steps.following - steps.features) @ theta
        moments = _moments(traces * td_errors[:, None], steps.streams) * (streams / (streams - count))
        moments += shared @ shared.T
        noise = _noise(moments, matrix, steps)
        theta = _solve(matrix + noise * precision, target)
    inverse = np.linalg.inv(matrix + noise * precision)
    covariance = inverse @ (moments + noise**2 * precision) @ inverse.T
    return Fit(theta=theta, covariance=covariance)


def _traces(steps: Transitions, td_lambda: float) -> Float64:
    traces = steps.features.copy()
    for index in range(1, len(traces)):
        if steps.streams[index] == steps.streams[index - 1]:
            traces[index] += td_lambda * traces[index - 1]
    return traces


def _scale(steps: Transitions) -> Float64:
    """Root mean square of each feature, so that its unit does not matter; 1 where it is always 0."""
    size = np.sqrt(np.mean(steps.features**2, axis=0)) if len(steps.features) else np.ones(steps.features.shape[1])
    return np.where(size > 0.0, size, 1.0)


def _ended_share(steps: Transitions) -> float:
    """Share of the runs that end with their stream."""
    last = np.flatnonzero(np.diff(steps.streams, append=-1))
    return float(np.mean(~steps.following[last].any(axis=1))) if len(last) else 0.0


def _solve(matrix: Float64, target: Float64) -> Float64:
    return np.asarray(np.linalg.solve(matrix, target), dtype=np.float64)


def _noise(moments: Float64, matrix: Float64, steps: Transitions) -> float:
    """Noise per unit of information, at least MIN_NOISE; 1 if there is no information."""
    squares = _scale(steps) ** 2
    information = float(np.sum(np.diag(matrix) / squares))
    return max(float(np.sum(np.diag(moments) / squares)) / information, MIN_NOISE) if information > 0.0 else 1.0


def _moments(terms: Float64, streams: Int64) -> Float64:
    """Sum over streams of u u^T, with u the sum of a stream's terms."""
    sums = np.zeros((int(streams.max()) + 1 if len(streams) else 0, terms.shape[1]))
    np.add.at(sums, streams, terms)
    return sums.T @ sums
