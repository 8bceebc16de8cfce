"""Waits for calls of a rank to the rollout actors (nccl). Not run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from agile_ray.errors import AgileError, DeadlineError, LearnerError
from agile_ray.ray_errors import explain

if TYPE_CHECKING:
    from ray import ObjectRef

LOWER = "rollout.gpu_memory or rollout.seats"
"""What needs less memory on an engine's node when it is smaller."""


def ask_all(call: str, answers: "Sequence[ObjectRef[None]]", *, deadline_s: float) -> None:
    """Wait until every rollout actor has answered.

    Args:
        call: its name, for errors.
        answers: one per actor.
        deadline_s: longest wait for all of them.

    Raises:
        AgileError: what an actor raised on purpose.
        DeadlineError: an actor is late.
        LearnerError: an actor died, or raised something else.
    """
    where = f"learner.send: the engines' {call}"
    try:
        ray.get(list(answers), timeout=deadline_s)
    except GetTimeoutError as error:
        raise DeadlineError(f"{where} must end within cluster.deadline_s ({deadline_s:g} s), and did not") from error
    except RayTaskError as error:
        if isinstance(error.cause, AgileError):
            raise error.cause from None
        raise LearnerError(f"{where}: {type(error.cause).__name__}: {explain(error.cause, lower=LOWER)}") from error
    except RayError as error:
        raise LearnerError(f"{where}: {type(error).__name__}: {explain(error, lower=LOWER)}") from error
