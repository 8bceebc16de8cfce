"""Advantage estimation on flat arrays of action tokens: NumPy, no Ray, no torch.

Observation tokens and padding never get here, so inserting them can not change a number.
A = action tokens of all sessions, in session order.
"""

import numpy as np
from numpy.typing import NDArray

from agile_ray.errors import ContractError
from agile_ray.types import Float32


def gae(
    rewards_A: Float32, values_A: Float32, session_ids_A: NDArray[np.int64], *, discount: float, decay: float
) -> Float32:
    """Generalized advantage estimates (Schulman et al., 2016, eq. 16); every session is terminal.

    Args:
        rewards_A: float32 [A], received after the token.
        values_A: float32 [A], value of the state before the token.
        session_ids_A: int64 [A], equal for tokens of one session, which stand side by side.
        discount: gamma, per action token, in [0, 1].
        decay: lambda, per action token, in [0, 1].

    Returns:
        float32 [A], summed in float64.

    Raises:
        ContractError: the arrays differ in length.
    """
    if not len(rewards_A) == len(values_A) == len(session_ids_A):
        raise ContractError.mismatch(
            "gae", rewards=rewards_A.shape, values=values_A.shape, session_ids=session_ids_A.shape
        )
    advantages_A = np.zeros(len(rewards_A), dtype=np.float64)
    next_value = next_advantage = 0.0
    next_session = None
    steps = zip(rewards_A.tolist(), values_A.tolist(), session_ids_A.tolist(), strict=True)
    for place, (reward, value, session) in reversed(list(enumerate(steps))):
        if session != next_session:
            next_value = next_advantage = 0.0
        surprise = reward + discount * next_value - value
        next_advantage = surprise + discount * decay * next_advantage
        next_value, next_session = value, session
        advantages_A[place] = next_advantage
    return advantages_A.astype(np.float32)


def whiten(advantages_A: Float32) -> Float32:
    """Shift and scale to mean 0 and standard deviation 1 over all action tokens given."""
    if len(advantages_A) == 0:
        return advantages_A
    wide_A = advantages_A.astype(np.float64)
    return ((wide_A - wide_A.mean()) / (wide_A.std() + 1e-8)).astype(np.float32)


def explained_variance(values_A: Float32, returns_A: Float32) -> float:
    """Share of the returns' variance that the critic foresaw: 1 is perfect, 0 is no better than a constant."""
    spread = float(np.var(returns_A, dtype=np.float64))
    if spread == 0.0:
        return 0.0
    return 1.0 - float(np.var(returns_A.astype(np.float64) - values_A)) / spread
