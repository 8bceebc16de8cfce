"""The choice of the best iteration: the latest within one paired standard error, without the luck of guesses."""

from itertools import accumulate

import numpy as np
import pytest

from agile_ray.errors import StarvedError
from agile_ray.evaluation.choice import choose, validation_score
from agile_ray.types import Ending, Receipt, ValidationScore
from tests.fakes.worlds import SESSION, changed

RECEIPT = Receipt(key="k", price=300, source="gold", latency_s=0, advice="yes", answer="yes")


def scored(iteration, *means, count=10, total=0.5, names=None):
    """Streams of `count` sessions with these mean rewards."""
    names = names or [f"s{index}" for index in range(len(means))]
    units = {name: (1000 * count * mean, count) for name, mean in zip(names, means, strict=True)}
    return ValidationScore(iteration=iteration, total=total, units=units)


HIGHEST = scored(7, 0.9, 0.5, 0.7)


def test_the_highest_is_chosen_if_no_later_one_is_within_one_standard_error():
    found = choose([HIGHEST, scored(14, 0.8, 0.4, 0.6)])  # 0.1 lower on each stream, so surely lower
    assert (found.iteration, found.highest, found.error, found.evaluated) == (7, 7, None, 2)
    assert found.total == found.highest_total == pytest.approx(0.7)


def test_the_latest_within_one_standard_error_of_the_paired_difference_is_chosen():
    later = scored(21, 0.9, 0.5, 0.4)  # 0.1 lower on average: 0, 0 and 0.3, standard error 0.1
    found = choose([HIGHEST, scored(14, 0.8, 0.4, 0.6), later, scored(28, 0.8, 0.4, 0.65)])
    assert (found.iteration, found.highest, found.evaluated) == (21, 7, 4)
    assert (found.total, found.highest_total, found.error) == pytest.approx((0.6, 0.7, 0.1))


def test_streams_count_by_their_sessions_and_are_paired_by_name():
    one = ValidationScore(iteration=1, total=0, units={"a": (9000, 10), "b": (0, 1)})
    other = ValidationScore(iteration=2, total=0, units={"b": (450, 1), "a": (8500, 10)})
    found = choose([one, other])
    assert (found.iteration, found.highest, found.highest_total) == (2, 1, pytest.approx(9 / 11))
    residuals = np.array([0.5 - 0.05 / 11 * 10, -0.45 - 0.05 / 11])
    assert found.error == pytest.approx((2 * ((residuals / np.array([1, 10]) / 2) ** 2).sum()) ** 0.5)


def test_one_unit_has_no_error_so_only_an_equal_total_is_as_good():
    assert choose([scored(1, 0.7), scored(2, 0.699)]).iteration == 1
    assert choose([scored(1, 0.7), scored(2, 0.7), scored(3, 0.6)]).iteration == 2


def test_an_evaluation_with_a_single_stream_that_did_not_fail_has_an_error():
    one = ValidationScore(iteration=1, total=0, units={"a": (9000, 10), "b": (0, 0)})
    assert choose([one, scored(2, 0.8, 0.8, names=["a", "b"])]).iteration == 1


def test_without_values_on_the_same_streams_totals_are_compared_and_it_says_so():
    old = [ValidationScore(iteration=7, total=0.8731), ValidationScore(iteration=14, total=0.8731)]
    found = choose([*old, scored(21, 0.9, 0.9, total=0.8729)])
    assert (found.iteration, found.total, found.unpaired, found.error) == (14, 0.8731, (7, 14), None)
    moved = choose([scored(7, 0.9, 0.8, total=0.6), scored(14, 0.9, 0.8, names=["t0", "t1"], total=0.5)])
    assert (moved.iteration, moved.total, moved.unpaired) == (7, 0.6, (7,))


def test_the_choice_moves_forward_only_and_never_needs_an_iteration_that_it_has_passed():
    random = np.random.default_rng(0)
    for _ in range(200):
        evaluated = [scored(i, *random.normal(0.8, 0.05, 6)) for i in range(1, 9)]
        chosen = [choose(some).iteration for some in accumulate([one] for one in evaluated)]
        assert chosen == sorted(chosen)
        for before, after, newest in zip(chosen, chosen[1:], range(2, 9), strict=False):
            assert after in (before, newest)


def guess(position, *, stream="s", right, **changes):
    return changed(SESSION, stream=stream, position=position, stream_length=4, correct=right, **changes)


def test_a_guess_counts_at_its_probability_and_everything_else_as_judged():
    sessions = [
        guess(0, right=False, guess_probability=0.75),
        guess(1, right=True, receipts=(RECEIPT,)),
        guess(0, right=False, stream="t"),
        guess(1, right=True, stream="t", ending=Ending.FAILED, error="gone", guess_probability=0.5),
    ]
    found = validation_score(3, sessions)
    assert found.units == {"s": (750 + 700, 2), "t": (0, 1)}
    assert (found.iteration, found.total) == (3, pytest.approx(0.7 / 3))


def test_runs_of_the_only_stream_are_the_same_in_each_evaluation_whichever_sessions_failed():
    whole = [guess(position, right=True) for position in range(4)]
    broken = [changed(whole[0], ending=Ending.FAILED, error="gone"), *whole[1:]]
    assert validation_score(1, whole).units == {"run 0": (2000, 2), "run 1": (2000, 2)}
    assert validation_score(1, broken).units == {"run 0": (1000, 1), "run 1": (2000, 2)}
    with pytest.raises(StarvedError):
        validation_score(1, broken[:1])
