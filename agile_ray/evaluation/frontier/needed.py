"""Asks against the asks that were needed, as the oracle knows them.

Dimensions: N = sessions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.types import Ending, Float64, Mask, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class AskMatch:
    """How well asks match the needed ones. A share is None where it has no denominator."""

    precision: float | None  # share of asks that were needed
    recall: float | None  # share of needed asks that were made
    f1: float | None  # harmonic mean of the two; None where nobody asks


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Sessions whose predicted probability is in one interval."""

    predicted: float  # mean probability
    happened: float  # share of the sessions
    sessions: int


def ask_match(asked_N: Mask, needed_N: Mask) -> AskMatch:
    """Compare asks with the needed ones: Ask-F1 of HiL-Bench, the F1 of a classifier (van Rijsbergen, 1979).

    Args:
        asked_N: bool [N], the session asked.
        needed_N: bool [N], an ask was needed.
    """
    both, asked, needed = int((asked_N & needed_N).sum()), int(asked_N.sum()), int(needed_N.sum())
    return AskMatch(
        precision=both / asked if asked else None,
        recall=both / needed if needed else None,
        f1=2 * both / (asked + needed) if asked + needed else None,
    )


def match_oracle(sessions: Sequence[Session], oracle: Sequence[Session]) -> AskMatch:
    """Compare a policy's asks with the oracle's on the same questions; a pair with a failed session is left out.

    The oracle asks at the first of several questions on an item, and once. A policy that asks at a later one misses an
    ask and makes one that was not needed.
    """
    asks = {(one.stream, one.position): one.asks > 0 for one in oracle if one.ending is not Ending.FAILED}
    kept = [one for one in sessions if one.ending is not Ending.FAILED and (one.stream, one.position) in asks]
    asked = np.array([one.asks > 0 for one in kept], np.bool_)
    return ask_match(asked, np.array([asks[one.stream, one.position] for one in kept], np.bool_))


def calibration(predicted_N: Float64, happened_N: Mask, *, bins: int = 10) -> list[CalibrationBin]:
    """Compare predicted probabilities with what happened, in equal intervals; empty ones are left out.

    The reliability diagram of Guo et al., "On calibration of modern neural networks", 2017, section 2.

    Args:
        predicted_N: float64 [N], in [0, 1].
        happened_N: bool [N].
        bins: number of intervals; the last one includes 1.
    """
    index_N = np.minimum((predicted_N * bins).astype(np.int64), bins - 1)
    return [
        CalibrationBin(
            predicted=float(predicted_N[inside].mean()),
            happened=float(happened_N[inside].mean()),
            sessions=int(inside.sum()),
        )
        for index in range(bins)
        if (inside := index_N == index).any()
    ]


def calibration_error(found: Sequence[CalibrationBin]) -> float:
    """Expected calibration error: mean distance of what was predicted and what happened, by sessions (Guo et al.)."""
    total = sum(one.sessions for one in found)
    return sum(one.sessions * abs(one.predicted - one.happened) for one in found) / total
