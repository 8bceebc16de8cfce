"""Waits for the answers of Ray actors: every wait has a deadline, and every failure is one of this project's errors."""

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from agile_ray.errors import AgileError, DeadlineError, EngineError
from agile_ray.ray_errors import explain

if TYPE_CHECKING:
    from ray import ObjectRef

POLL_S = 0.5
"""Time between two calls of `meanwhile`, seconds."""
LOWER = "rollout.seats, rollout.actors or rollout.kv_cache_gib"
"""What needs less memory on an engine's node when it is smaller."""
FETCH_S = 15.0
"""Longest wait for an answer that is ready, seconds."""

Result = TypeVar("Result")


def wait(
    call: str,
    answers: "Sequence[ObjectRef[Result]]",
    *,
    deadline_s: float,
    meanwhile: Callable[[], Collection[int]] | None = None,
) -> list[Result]:
    """Wait until every actor has answered; answer k comes from actor k.

    Args:
        call: its name, for errors.
        answers: one of each actor.
        deadline_s: of each actor, seconds.
        meanwhile: is called about every `POLL_S` seconds while an answer is missing. The deadlines of the actors that
            it returns begin anew.

    Raises:
        AgileError: an actor raised it.
        DeadlineError: an actor is late.
        EngineError: an actor died, or raised something else.
    """
    ends = dict.fromkeys(range(len(answers)), time.monotonic() + deadline_s)
    results: dict[int, Result] = {}
    pending = {answer: index for index, answer in enumerate(answers)}
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_S)
        for answer in ready:
            index = pending.pop(answer)
            results[index] = _result(f"rollout.{call}: actor {index}", answer)
        if pending and meanwhile is not None:
            ends |= dict.fromkeys(meanwhile(), time.monotonic() + deadline_s)
        if late := [str(index) for index in pending.values() if time.monotonic() > ends[index]]:
            must = "answer" if meanwhile is None else "answer or report a step"
            raise DeadlineError(
                f"rollout.{call}: every actor must {must} within {deadline_s:g} s, these did not: {', '.join(late)}"
            )
    return [results[index] for index in range(len(answers))]


def _result(where: str, answer: "ObjectRef[Result]") -> Result:
    try:
        return ray.get(answer, timeout=FETCH_S)
    except RayTaskError as error:
        if isinstance(error.cause, AgileError):
            raise error.cause from None
        cause = explain(error.cause, lower=LOWER)
        raise EngineError(f"{where} failed, {type(error.cause).__name__}: {cause}") from error
    except (RayActorError, OutOfMemoryError) as error:
        raise EngineError(f"{where} died ({explain(error, lower=LOWER)}); the same run name resumes") from error
    except RayError as error:  # also the answer's fetch that took too long
        raise EngineError(f"{where}: {type(error).__name__}: {explain(error, lower=LOWER)}") from error
