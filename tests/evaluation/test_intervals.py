"""Intervals cover the truth about as often as they say, for few and many units of skewed, correlated sessions."""

import numpy as np
import pytest

from agile_ray.evaluation.intervals import (
    FEW,
    Estimate,
    estimate,
    standard_error,
    unit_interval,
    within_streams,
)
from tests.fakes.worlds import SESSION, changed


def draw(random, units, *, uneven):
    """Units whose accuracy differs, so that their sessions are correlated: rewards and sessions of each."""
    counts = np.round(np.exp(random.normal(4, 0.4, units))) if uneven else np.full(units, 48.0)
    accuracy = random.beta(6, 2, units)  # skewed: mean 0.75, most are higher
    asks = random.binomial(counts.astype(int), 0.5 * (1 - accuracy))
    return random.binomial(counts.astype(int), accuracy) - 0.3 * asks, counts


TRUTH = 0.75 - 0.3 * 0.5 * 0.25


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("units", [3, 6, 12, 20, 40])
def test_about_95_percent_of_the_intervals_cover_the_truth(units, uneven):
    random = np.random.default_rng(units)
    repeats, covered = (3000 if units < FEW else 400), 0  # a standard error of 0.4 and 1.1 %
    for repeat in range(repeats):
        ends, method = unit_interval(*draw(random, units, uneven=uneven), seed=repeat)
        assert method == ("Student's t" if units < FEW else "bootstrap-t")
        covered += ends[0] <= TRUTH <= ends[1]
    assert 0.92 <= covered / repeats <= 0.98


def test_the_interval_of_skewed_units_reaches_further_to_the_side_of_the_long_tail():
    sums = np.random.default_rng(0).exponential(size=30)
    (low, high), _ = unit_interval(sums, np.ones(30), seed=0)
    assert high - sums.mean() > 1.2 * (sums.mean() - low)


def test_a_larger_unit_weighs_more():
    sums, counts = np.array([9.0, 0.0, 1.0]), np.array([10.0, 1.0, 1.0])
    (low, high), _ = unit_interval(sums, counts, seed=0)
    mean = 10 / 12
    deviations = 2 / 3 * (sums - mean * counts) / (12 - counts)
    assert (low + high) / 2 == pytest.approx(mean)
    assert (high - low) / 2 == pytest.approx(4.3027 * (1.5 * (deviations**2).sum()) ** 0.5, abs=1e-4)


@pytest.mark.parametrize("units", [2, 14, 15, 100])
def test_units_that_are_all_equal_have_an_interval_of_no_width(units):
    counts = np.arange(1.0, units + 1)
    ends, method = unit_interval(0.7 * counts, counts, seed=0)
    assert ends == pytest.approx((0.7, 0.7))
    assert method == "Student's t"


def test_few_units_that_differ_among_many_have_students_interval():
    sums = np.zeros(40)
    sums[7] = 1.0
    ends, method = unit_interval(sums, np.ones(40), seed=0)
    assert (ends, method) == (estimate(sums.tolist()).ci95, "Student's t")


def test_a_single_value_has_no_interval():
    assert unit_interval(np.ones(1), np.ones(1), seed=0) == (None, "too few for an interval")
    assert estimate([0.4]) == Estimate(mean=0.4, ci95=None)


def test_the_standard_error_of_equal_sizes_is_that_of_a_mean():
    values = np.array([1.0, 4.0, 4.0, 7.0])
    assert standard_error((values - 4.0) / 4) == pytest.approx(values.std(ddof=1) / 2)


def test_within_a_few_streams_the_interval_is_about_these_streams_alone():
    """Each stream has its own level, which says nothing about the error of the mean over these streams."""
    random, length, levels = np.random.default_rng(0), 100, {"a": 0.9, "b": 0.5, "c": 0.1}
    ids = [(stream, position) for stream in levels for position in range(length)]
    sessions = [changed(SESSION, stream=stream, position=position, stream_length=length) for stream, position in ids]
    repeats, covered = 400, 0
    for _ in range(repeats):
        values = [1000.0 * (random.random() < levels[stream]) for stream, _ in ids]
        ends, described = within_streams(list(zip(sessions, values, strict=True)))
        covered += ends[0] <= 0.5 <= ends[1]
        assert 0.05 < ends[1] - ends[0] < 0.15  # 2 * 1.97 * sqrt(0.09 + 0.25 + 0.09) / 3 / 10 = 0.086 on average
    assert 0.92 <= covered / repeats <= 0.98
    assert described == "runs of sessions in 3 streams (Student's t)"


def test_within_a_stream_of_one_session_there_is_no_interval():
    sessions = [
        changed(SESSION, stream=stream, position=int(position)) for stream, position in ("a0", "b0", "b1", "b2")
    ]
    assert within_streams([(one, 0.0) for one in sessions])[0] is None
