"""How well the policy's own probability of asking agrees with the oracle's asks."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from agile_ray.evaluation.frontier.needed import CalibrationBin, calibration, calibration_error
from agile_ray.evaluation.frontier.selective import ask_probability
from agile_ray.types import Ending, Session


class Asking(BaseModel):
    """Calibration of the probability of asking."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: tuple[CalibrationBin, ...]  # predicted: probability of asking; happened: the oracle asks
    error: float  # expected calibration error
    sessions: int
    unknown: int  # sessions without a probability, left out


def asking(sessions: Sequence[Session], oracle: Sequence[Session]) -> Asking | None:
    """Compare the probabilities of sampled sessions with the oracle's asks on the same questions.

    Args:
        sessions: with their turns.
        oracle: its sessions.

    Returns:
        None if no session has a probability and an oracle's session beside it.
    """
    asks = {(one.stream, one.position): one.asks > 0 for one in oracle if one.ending is not Ending.FAILED}
    kept = [one for one in sessions if one.ending is not Ending.FAILED and (one.stream, one.position) in asks]
    known = [(p, asks[one.stream, one.position]) for one in kept if (p := ask_probability(one)) is not None]
    if not known:
        return None
    bins = calibration(np.array([p for p, _ in known]), np.array([needed for _, needed in known], np.bool_))
    return Asking(bins=tuple(bins), error=calibration_error(bins), sessions=len(known), unknown=len(kept) - len(known))
