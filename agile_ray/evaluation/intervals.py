"""Confidence intervals of a mean over sessions, from units that are independent of one another.

    two or more streams    a unit is a whole stream: its sessions share one memory
    one stream             a unit is a run of ceil(sqrt(sessions)) consecutive sessions, the last one shorter

Units differ in size, so the mean is a ratio of sums. Its standard error is the jackknife's (Efron and Tibshirani, An
Introduction to the Bootstrap, section 11.5). With unit k's sum s_k, its number of sessions n_k, K units, N = sum n_k:

    m = sum s_k / N        d_k = (K - 1) / K * (s_k - m n_k) / (N - n_k)        error^2 = K / (K - 1) * sum d_k^2

    K < 15     Student's t: m -+ t(0.975, K - 1) * error
    K >= 15    bootstrap-t (section 12.5): the quantiles of (m* - m) / error* over resampled units take t's place, so a
               skewed distribution gets an interval that is not symmetric. error* is linearized: d_k is
               (s_k - m* n_k) / N*. If a resample has no error, because few units differ from the mean: Student's t

On skewed data of 15 to 40 units, bootstrap-t covers 93 to 95 %, BCa 88 to 93 %, Student's t 90 to 94 %.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.seeds import derive
from agile_ray.types import Float64, Session

CONFIDENCE = 0.95
FEW = 15
"""Fewer units than this are too few to resample."""
RESAMPLES = 2000
"""Resamples of one bootstrap. The ends of an interval then vary with the seed by about 2 % of its width."""
NO_ERROR = 1e-6
"""A resample whose error is at most this share of the sample's has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    ci95: tuple[float, float] | None  # None: a single value has no interval


def estimate(values: Sequence[float]) -> Estimate:
    """Compute the mean with Student's interval, for few values of unknown variance; a single value has no interval."""
    ci95 = _students(np.array(values, dtype=np.float64), np.ones(len(values))) if len(values) > 1 else None
    return Estimate(mean=statistics.fmean(values), ci95=ci95)


def interval(valued: Sequence[tuple[Session, float]], *, seed: int) -> tuple[tuple[float, float] | None, str]:
    """Compute the 95 % interval of the mean over sessions.

    Args:
        valued: sessions with their values, thousandths.
        seed: of the resampling.

    Returns:
        the interval, in units of reward, None for a single unit; and a description of the units and the method.
    """
    sums, counts, described = _sums(valued)
    ci95, method = unit_interval(sums, counts, seed=seed)
    scaled = None if ci95 is None else (ci95[0] / 1000, ci95[1] / 1000)
    return scaled, f"{described} ({method})"


def within_streams(valued: Sequence[tuple[Session, float]]) -> tuple[tuple[float, float] | None, str]:
    """Compute the 95 % interval of the mean over sessions of these very streams.

    It says what other questions of the same streams would give.

    Units are runs of consecutive sessions in each stream. The error is that of a stratified sample: with stream s's N_s
    of N sessions, its K_s runs, and its error e_s, it is sqrt(sum (N_s / N)^2 e_s^2), with sum (K_s - 1) degrees of
    freedom.

    Args:
        valued: sessions with their values, thousandths.

    Returns:
        the interval, in units of reward, None if a stream has a single run; and a description of the units.
    """
    by_stream: dict[str, list[tuple[Session, float]]] = {}
    for session, value in valued:
        by_stream.setdefault(session.stream, []).append((session, value))
    total, squares, freedom, mean = len(valued), 0.0, 0, sum(value for _, value in valued) / len(valued)
    for part in by_stream.values():
        sums, counts, _ = _sums(part)
        if len(sums) < 2:
            return None, "too few for an interval"
        squares += (len(part) / total * standard_error(deviations(sums, counts))) ** 2
        freedom += len(sums) - 1
    width = _quantile(freedom) * math.sqrt(squares)
    described = f"runs of sessions in {len(by_stream)} stream{'s' * (len(by_stream) > 1)} (Student's t)"
    return ((mean - width) / 1000, (mean + width) / 1000), described


def unit_interval(sums: Float64, counts: Float64, *, seed: int) -> tuple[tuple[float, float] | None, str]:
    """Compute the 95 % interval of sum(sums) / sum(counts), and name the method.

    Args:
        sums: [K], of the values in each unit.
        counts: [K], number of values in each unit.
        seed: of the resampling.

    Returns:
        the interval, None for a single unit; values that are all equal have one of no width.
    """
    if len(sums) < 2:
        return None, "too few for an interval"
    if len(sums) >= FEW and (found := _bootstrap_t(sums, counts, seed=seed)) is not None:
        return found, "bootstrap-t"
    return _students(sums, counts), "Student's t"


def _sums(valued: Sequence[tuple[Session, float]]) -> tuple[Float64, Float64, str]:
    """Sum of the values and number of sessions, [K] each, in the units that `units` makes; and their description."""
    names, described = units([session for session, _ in valued])
    index = {name: number for number, name in enumerate(sorted(set(names)))}
    unit = [index[name] for name in names]
    worth = np.array([value for _, value in valued], dtype=np.float64)  # thousandths, so that equal ones stay equal
    return np.bincount(unit, weights=worth).astype(np.float64), np.bincount(unit).astype(np.float64), described


def units(sessions: Sequence[Session]) -> tuple[list[str], str]:
    """Name each session's unit, in their order, and describe the units: "64 streams" or "25 runs of 25 sessions"."""
    streams = {session.stream for session in sessions}
    if len(streams) > 1:
        return [session.stream for session in sessions], f"{len(streams)} streams"
    length = math.isqrt(len(sessions) - 1) + 1  # ceil of the root
    ranks = enumerate(sorted(session.position for session in sessions))
    runs = {position: f"run {rank // length}" for rank, position in ranks}
    number = -(-len(sessions) // length)
    return [runs[session.position] for session in sessions], f"{number} run{'s' * (number > 1)} of {length} sessions"


def deviations(sums: Float64, counts: Float64) -> Float64:
    """d_k of the module's docstring, [K]; 0 for a unit that has all sessions."""
    number, total = len(sums), counts.sum()
    left = total - counts
    moved = np.divide(sums - sums.sum() / total * counts, left, out=np.zeros(number), where=left > 0)
    return (number - 1) / number * moved


def standard_error(deviation: Float64) -> float:
    """The standard error of a ratio, or of a difference of ratios, from two or more units' deviations."""
    number = len(deviation)
    return math.sqrt(number / (number - 1) * float(deviation @ deviation))


def _students(sums: Float64, counts: Float64) -> tuple[float, float]:
    mean = float(sums.sum() / counts.sum())
    width = _quantile(len(sums) - 1) * standard_error(deviations(sums, counts))
    return mean - width, mean + width


def _quantile(freedom: int) -> float:
    """Of Student's t, at which a two-sided interval ends."""
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _bootstrap_t(sums: Float64, counts: Float64, *, seed: int) -> tuple[float, float] | None:
    """The bootstrap-t interval; None if a resample has no error.

    A resample is the number of times that it has each unit. Sums over its units, and with them its mean and error,
    are linear in these numbers.
    """
    number, mean = len(sums), float(sums.sum() / counts.sum())
    error = standard_error(deviations(sums, counts))
    rest = sums - mean * counts
    generator = np.random.default_rng(derive(seed, "bootstrap"))
    times = generator.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    total, size, squares, crossed, sizes = (
        times @ np.stack([rest, counts, rest * rest, rest * counts, counts * counts], axis=1)
    ).T
    shift = total / size  # mean of the resample minus mean of the sample
    variance = np.maximum(squares - 2 * shift * crossed + shift * shift * sizes, 0.0)
    errors = np.sqrt(number / (number - 1) * variance) / size
    if np.any(errors <= NO_ERROR * error):
        return None
    low, high = np.quantile(shift / errors, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return mean - float(high) * error, mean - float(low) * error
