"""Advantage estimation on flat arrays of action tokens: NumPy, no Ray, no torch.

Observation tokens and padding are never passed in, so inserting them can't change a number.
A = action tokens of all sessions, in session order.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agile_ray.errors import ContractError
from agile_ray.types import Float32

Real = TypeVar("Real", np.float32, np.float64)
Ints = NDArray[np.integer]


def gae(
    rewards_A: NDArray[Real],
    values_A: NDArray[Real],
    *,
    session_ids_A: Ints,
    turn_ids_A: Ints,
    gae_lambda: float,
    discount: float = 1.0,
) -> NDArray[Real]:
    """Generalized advantage estimates (Schulman et al., 2016, eq. 16) over action tokens; every session is terminal.

        advantage_t = sum over k >= t in t's session of (discount * gae_lambda)^(k - t) * td_error_k
        td_error_k  = reward_k + discount * value_{k+1} - value_k,   value 0 after a session's last action

    t and k count action tokens: an action is one token, and what the executor appends belongs to the transition (AGILE,
    section 2). A session ends where its id changes, not where a reward is or where positions jump. Turn ids only check
    the layout and change no advantage: with a recursion per turn, advantages would depend on how a text was cut into
    turns.

    Args:
        rewards_A: [A], in units of reward, received after the token.
        values_A: [A], in units of reward, of the state before the token.
        session_ids_A: int [A], equal for tokens of one session, which are adjacent.
        turn_ids_A: int [A], which turn of its session wrote the token, from 0, in the order written.
        gae_lambda: lambda, per action token, in [0, 1].
        discount: gamma, per action token, in [0, 1].

    Returns:
        [A], in units of reward, summed in float64; float64 if rewards or values are, otherwise float32.

    Raises:
        ContractError: the arrays differ in length, a session continues after another began, or turns are negative or
            out of order: a mask or an order does not belong to these rewards.
    """
    _check_layout(rewards_A, values_A, session_ids_A=session_ids_A, turn_ids_A=turn_ids_A)
    advantages_A = np.zeros(len(rewards_A), dtype=np.float64)
    next_value = next_advantage = 0.0
    next_session = None
    steps = zip(rewards_A.tolist(), values_A.tolist(), session_ids_A.tolist(), strict=True)
    for index, (reward, value, session) in reversed(list(enumerate(steps))):
        if session != next_session:
            next_value = next_advantage = 0.0
        td_error = reward + discount * next_value - value
        next_advantage = td_error + discount * gae_lambda * next_advantage
        next_value, next_session = value, session
        advantages_A[index] = next_advantage
    return advantages_A.astype(np.result_type(rewards_A, values_A, np.float32))


def whiten(advantages_A: Float32) -> Float32:
    """(a - mean) / (std + 1e-8) over all action tokens given, std with divisor A; float32 [A], no unit."""
    if len(advantages_A) == 0:
        return advantages_A
    wide_A = advantages_A.astype(np.float64)
    return ((wide_A - wide_A.mean()) / (wide_A.std() + 1e-8)).astype(np.float32)


def explained_variance(values_A: Float32, returns_A: Float32) -> float:
    """Compute 1 - Var(returns - values) / Var(returns); 0 if returns do not vary.

    1: values are right up to a constant. 0: no better than a constant. Below 0: worse than a constant.
    """
    spread = float(np.var(returns_A, dtype=np.float64))
    if spread == 0.0:
        return 0.0
    return 1.0 - float(np.var(returns_A.astype(np.float64) - values_A)) / spread


def _check_layout(rewards_A: NDArray[Real], values_A: NDArray[Real], *, session_ids_A: Ints, turn_ids_A: Ints) -> None:
    shapes = {
        "rewards": rewards_A.shape,
        "values": values_A.shape,
        "session_ids": session_ids_A.shape,
        "turn_ids": turn_ids_A.shape,
    }
    if len(set(shapes.values())) != 1:
        raise ContractError.mismatch("gae", **shapes)
    same_session = session_ids_A[1:] == session_ids_A[:-1]
    sessions, runs = np.unique([*session_ids_A[:1], *session_ids_A[1:][~same_session]], return_counts=True)
    if (runs > 1).any():
        again = sessions[runs.argmax()]
        raise ContractError(f"gae: tokens of one session are adjacent, session {again} continues after another")
    outside = np.flatnonzero(turn_ids_A < 0)
    if len(outside):
        raise ContractError(f"gae: an action token has a turn, token {outside[0]} has {turn_ids_A[outside[0]]}")
    falls = np.flatnonzero(same_session & (turn_ids_A[1:] < turn_ids_A[:-1]))
    if len(falls):
        before, after = turn_ids_A[falls[0] : falls[0] + 2]
        raise ContractError(
            f"gae: turns of a session never go back, token {falls[0] + 1} goes from {before} to {after}"
        )
