"""Chooses the best of the iterations that were evaluated on validation.

Totals of few streams differ by luck, so the highest one is not the best by much. Chosen is the latest iteration whose
total is within one standard error of the highest. All play the same streams, so the error is that of the paired
difference, and the luck of guesses is taken out where the environment knows it (`expected_reward`).

The chosen iteration never moves back: a new evaluation is chosen itself if its total is the highest, and leaves the
choice as it is if its total is far below. So of all evaluated iterations only the chosen one can still be chosen later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.evaluation.intervals import deviations, standard_error, units
from agile_ray.evaluation.score import expected_reward, score
from agile_ray.types import Ending, Float64, Session, ValidationScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which iteration was chosen, and why. Totals are without the luck of guesses, unless `unpaired` has iterations."""

    iteration: int
    total: float
    highest: int  # the iteration with the highest total, the latest of equals
    highest_total: float
    error: float | None  # standard error of the paired difference of the two; None if they are one
    evaluated: int  # iterations
    unpaired: tuple[int, ...]  # iterations without values on the latest one's streams: totals alone were compared


def validation_score(iteration: int, sessions: Sequence[Session]) -> ValidationScore:
    """Score an iteration's sessions on validation.

    Raises:
        ContractError: a question was played twice.
        StarvedError: no session is left to score.
    """
    total = score(sessions).total_score
    found: dict[str, tuple[float, int]] = {}
    for session, unit in zip(sessions, units(sessions)[0], strict=True):  # failed ones too, so that units are the same
        worth, count = found.get(unit, (0.0, 0))
        if session.ending is not Ending.FAILED:
            worth, count = worth + expected_reward(session, session.hindsight.guess_probability), count + 1
        found[unit] = worth, count
    return ValidationScore(iteration=iteration, total=total, units=found)


def choose(evaluated: Sequence[ValidationScore]) -> Choice:
    """Choose one of the evaluated iterations, by the rule in the module's docstring.

    If some have no values on the streams of the latest one, the highest total of real outcomes is chosen, the latest of
    equals.

    Args:
        evaluated: at least one, in order.
    """
    names = evaluated[-1].units or {}
    unpaired = tuple(one.iteration for one in evaluated if one.units is None or one.units.keys() != names.keys())
    if unpaired:
        highest = chosen = max(evaluated, key=lambda one: (one.total, one.iteration))
        totals, error = {one.iteration: one.total for one in evaluated}, 0.0
    else:
        totals = {one.iteration: _total(one) for one in evaluated}
        highest = max(evaluated, key=lambda one: (totals[one.iteration], one.iteration))
        best, errors = totals[highest.iteration], {one.iteration: _error(one, highest) for one in evaluated}
        chosen = [one for one in evaluated if best - totals[one.iteration] <= errors[one.iteration]][-1]
        error = errors[chosen.iteration]
    return Choice(
        iteration=chosen.iteration,
        total=totals[chosen.iteration],
        highest=highest.iteration,
        highest_total=totals[highest.iteration],
        error=None if chosen is highest else error,
        evaluated=len(evaluated),
        unpaired=unpaired,
    )


def _total(one: ValidationScore) -> float:
    sums, counts = _arrays(one)
    return float(sums.sum() / counts.sum())


def _error(one: ValidationScore, other: ValidationScore) -> float:
    """Standard error of the paired difference of two totals; 0 with a single unit, which has no error."""
    difference = deviations(*_arrays(one)) - deviations(*_arrays(other))
    return standard_error(difference) if len(difference) > 1 else 0.0


def _arrays(one: ValidationScore) -> tuple[Float64, Float64]:
    """Rewards and sessions by unit, in the order of the units' names."""
    assert one.units is not None
    pairs = np.array([one.units[name] for name in sorted(one.units)])
    return pairs[:, 0] / 1000, pairs[:, 1]
