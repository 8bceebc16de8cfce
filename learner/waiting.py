"""Waiting for Ray: every wait has a deadline that names itself, and every failure is an error of ours."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from agile_ray.errors import AgileError, DeadlineError, LearnerError

if TYPE_CHECKING:
    from ray import ObjectRef

Result = TypeVar("Result")


def wait(call: str, answers: "Sequence[ObjectRef[Result]]", *, deadline_s: float) -> list[Result]:
    """Wait until every rank has answered.

    Raises:
        AgileError: what a rank raised on purpose.
        DeadlineError: a rank is late.
        LearnerError: a rank died, or raised something else.
    """
    try:
        return ray.get(list(answers), timeout=deadline_s)
    except GetTimeoutError as error:
        raise DeadlineError(
            f"learner.{call}: every rank must answer within cluster.deadline_s ({deadline_s:g} s), one did not"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, AgileError):
            raise error.cause from None
        cause = " ".join(str(error.cause).split())
        raise LearnerError(f"learner.{call}: a rank failed, {type(error.cause).__name__}: {cause}") from error
    except RayActorError as error:
        raise LearnerError(
            f"learner.{call}: a rank's process died ({' '.join(str(error).split())}); the same run name resumes"
        ) from error
    except RayError as error:
        raise LearnerError(f"learner.{call}: {' '.join(str(error).split())}") from error
