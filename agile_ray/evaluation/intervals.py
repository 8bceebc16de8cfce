"""Confidence intervals: bootstrap over streams, and Student's over seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.seeds import derive
from agile_ray.types import Float64, Session

CONFIDENCE = 0.95
RESAMPLES = 2000
"""Resamples of one bootstrap. The ends of an interval then vary with the seed by about 2 % of its width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    ci95: tuple[float, float] | None  # None: a single value has no interval


def bootstrap(valued: Sequence[tuple[Session, float]], *, seed: int) -> tuple[tuple[float, float], str]:
    """Compute the 95 % percentile interval of the mean over sessions.

    Args:
        valued: sessions with their values, thousandths.
        seed: of the resampling.

    Returns:
        the interval, in units of reward, and a description of what is resampled.
    """
    sums, counts, units = _units(valued)
    generator = np.random.default_rng(derive(seed, "bootstrap"))
    times = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    means = (times @ sums) / (1000 * (times @ counts))
    low, high = np.percentile(means, [2.5, 97.5])
    return (float(low), float(high)), units


def estimate(values: Sequence[float]) -> Estimate:
    """Compute the mean with Student's interval, for few values of unknown variance.

    mean -+ t(0.975, n - 1) * s / sqrt(n)     s with divisor n - 1; a single value has no interval
    """
    from scipy.stats import t  # slow to import, and rarely needed

    mean = statistics.fmean(values)
    if len(values) < 2:
        return Estimate(mean=mean, ci95=None)
    width = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean=mean, ci95=(mean - width, mean + width))


def _units(valued: Sequence[tuple[Session, float]]) -> tuple[Float64, Float64, str]:
    """Sums and session counts of the resampled units, and their description."""
    streams = sorted({session.stream for session, _ in valued})
    if len(streams) > 1:
        number = {stream: index for index, stream in enumerate(streams)}
        unit = [number[session.stream] for session, _ in valued]
        values = [value for _, value in valued]
        text = f"{len(streams)} streams"
    else:
        length = math.isqrt(len(valued) - 1) + 1  # ceil of the root
        values = [value for _, value in sorted(valued, key=lambda pair: pair[0].position)]
        unit = [index // length for index in range(len(valued))]
        text = f"{unit[-1] + 1} runs of {length} sessions"
    sums, counts = np.zeros((2, unit[-1] + 1 if len(streams) == 1 else len(streams)))
    np.add.at(sums, unit, values)
    np.add.at(counts, unit, 1)
    return sums, counts, text
