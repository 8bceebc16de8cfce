"""Every measure of a frontier equals an independent implementation on random data."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.optimize import linprog
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from agile_ray.evaluation.frontier.closed import closed
from agile_ray.evaluation.frontier.deferral import area, deferral_curve, share_needed
from agile_ray.evaluation.frontier.hypervolume import hypervolume
from agile_ray.evaluation.frontier.needed import ask_match, calibration, calibration_error
from agile_ray.evaluation.frontier.order import violations
from agile_ray.evaluation.frontier.selective import augrc

EXACT = pytest.approx
SEEDS = pytest.mark.parametrize("seed", range(8))


def points(seed, count=7):
    """Points on a coarse grid, so that shares and accuracies are equal now and then."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 9, count) / 8, generator.integers(0, 9, count) / 8


def by_inclusion_and_exclusion(shares, accuracies, worst_share, worst_accuracy):
    """Area of a union of rectangles, by the areas of all intersections."""
    total = 0.0
    for size in range(1, len(shares) + 1):
        for chosen in itertools.combinations(range(len(shares)), size):
            left, top = max(shares[list(chosen)]), min(accuracies[list(chosen)])
            total -= (-1) ** size * max(worst_share - left, 0) * max(top - worst_accuracy, 0)
    return total


@SEEDS
@pytest.mark.parametrize("worst", [(1.0, 0.0), (0.7, 0.3)])
def test_hypervolume_is_the_area_of_the_union_of_rectangles(seed, worst):
    shares, accuracies = points(seed)
    found = hypervolume(shares, accuracies, worst_share=worst[0], worst_accuracy=worst[1])
    assert found == EXACT(by_inclusion_and_exclusion(shares, accuracies, *worst), abs=1e-9)


@SEEDS
def test_hypervolume_equals_that_of_moocore(seed):
    moocore = pytest.importorskip("moocore")
    shares, accuracies = points(seed)
    expected = moocore.hypervolume(np.stack([shares, -accuracies], axis=1), ref=[1.0, -0.2])
    assert hypervolume(shares, accuracies, worst_share=1.0, worst_accuracy=0.2) == EXACT(expected, abs=1e-9)


def test_hypervolume_of_no_points_is_zero():
    assert hypervolume(np.empty(0), np.empty(0), worst_share=1.0, worst_accuracy=0.0) == 0.0


def best_mixture(shares, accuracies, budget):
    """Highest accuracy of a mixture of policies that asks in at most a share of the sessions, by linear programming."""
    found = linprog(
        -accuracies, A_ub=[shares], b_ub=[budget], A_eq=[np.ones(len(shares))], b_eq=[1], bounds=(0, 1), method="highs"
    )
    assert found.success
    return -found.fun


@SEEDS
def test_the_deferral_curve_is_what_the_best_mixture_of_policies_reaches(seed):
    shares, accuracies = points(seed)
    unaided = 0.25
    curve = deferral_curve(shares, accuracies, unaided=unaided)
    everyone = np.append(shares, 0.0), np.append(accuracies, unaided)
    for budget in np.linspace(0, 1, 17):
        expected = best_mixture(*everyone, budget)
        assert np.interp(budget, curve.shares_H, curve.accuracies_H) == EXACT(expected, abs=1e-9)


@SEEDS
def test_the_area_is_the_integral_of_the_best_mixture(seed):
    shares, accuracies = points(seed, count=4)
    everyone = np.append(shares, 0.0), np.append(accuracies, 0.25)
    corners = np.unique(everyone[0])  # between two corners the best mixture is a straight line
    edges = np.union1d(corners, [1.0])
    expected = sum(
        integrate.quad(lambda budget: best_mixture(*everyone, budget), low, high, limit=5, epsabs=1e-10)[0]
        for low, high in itertools.pairwise(edges)
    )
    assert area(deferral_curve(shares, accuracies, unaided=0.25)) == EXACT(expected, abs=1e-9)


@SEEDS
def test_the_share_needed_is_that_of_the_cheapest_mixture(seed):
    shares, accuracies = points(seed)
    curve = deferral_curve(shares, accuracies, unaided=0.125)
    everyone = np.append(shares, 0.0), np.append(accuracies, 0.125)
    for target in np.linspace(0.125, 1.1, 12):
        found = linprog(
            everyone[0], A_ub=[-everyone[1]], b_ub=[-target], A_eq=[np.ones(8)], b_eq=[1], bounds=(0, 1), method="highs"
        )
        needed = share_needed(curve, target)
        assert (needed is None) == (not found.success)
        assert needed is None or needed == EXACT(found.fun, abs=1e-9)


@SEEDS
def test_augrc_is_the_mean_loss_over_pairs_of_a_threshold_and_a_session(seed):
    generator = np.random.default_rng(seed)
    confidences, losses = generator.integers(0, 6, 40) / 5, generator.random(40) * 3
    ahead = (confidences[None, :] > confidences[:, None]) + 0.5 * (confidences[None, :] == confidences[:, None])
    assert augrc(confidences, losses) == EXACT(float((ahead * losses[None, :]).mean()), abs=1e-9)


@SEEDS
def test_augrc_of_right_and_wrong_answers_follows_from_the_roc_curve(seed):
    generator = np.random.default_rng(seed)
    confidences, right = generator.random(60), generator.random(60) < 0.7
    accuracy = right.mean()
    auroc = roc_auc_score(right, confidences)
    expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2  # Traub et al., 2024, eq. 7
    assert augrc(confidences, 1.0 - right) == EXACT(expected, abs=1e-9)


@SEEDS
def test_ask_f1_equals_that_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    asked, needed = generator.random(50) < 0.3, generator.random(50) < 0.4
    found = ask_match(asked, needed)
    assert found.precision == EXACT(precision_score(needed, asked), abs=1e-9)
    assert found.recall == EXACT(recall_score(needed, asked), abs=1e-9)
    assert found.f1 == EXACT(f1_score(needed, asked), abs=1e-9)


def test_ask_f1_is_none_where_nobody_asks():
    nobody, somebody = np.zeros(3, np.bool_), np.array([True, False, False])
    assert ask_match(nobody, nobody).f1 is None
    missed = ask_match(nobody, somebody)
    assert (missed.precision, missed.recall, missed.f1) == (None, 0.0, 0.0)


@SEEDS
def test_calibration_equals_the_curve_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    predicted = generator.random(200)
    happened = generator.random(200) < predicted**2
    found = calibration(predicted, happened)
    shares, means = calibration_curve(happened, predicted, n_bins=10)
    assert [one.happened for one in found] == EXACT(list(shares), abs=1e-9)
    assert [one.predicted for one in found] == EXACT(list(means), abs=1e-9)
    counts = stats.binned_statistic(predicted, predicted, "count", bins=10, range=(0, 1)).statistic
    expected = (counts * np.abs(shares - means)).sum() / 200
    assert calibration_error(found) == EXACT(expected, abs=1e-9)


@SEEDS
def test_violations_are_the_concordant_pairs_of_kendalls_tau(seed):
    generator = np.random.default_rng(seed)
    prices, shares = np.arange(6) / 10, generator.random(6)
    found = violations(list(prices), list(shares))
    tau = stats.kendalltau(prices, shares).statistic  # without ties: (concordant - discordant) / pairs
    assert found.pairs == 15
    assert found.violated == EXACT((tau + 1) / 2 * found.pairs, abs=1e-9)


def test_equal_prices_and_equal_shares_violate_nothing():
    assert violations([0.1, 0.1, 0.3], [0.5, 0.6, 0.6]).violated == 1
    assert violations([0.1, 0.1, 0.3], [0.5, 0.6, 0.6]).pairs == 2
    assert violations([0.1, 0.3], [0.5, 0.5]).violated == 0


def test_closed_is_a_share_of_the_distance_to_the_oracle():
    assert closed(0.85, start=0.7, oracle=0.9) == EXACT(0.75)
    assert closed(0.6, start=0.7, oracle=0.9) == EXACT(-0.5)
    assert closed(0.8, start=0.9, oracle=0.9) is None
