"""The driver's handles of the ranks' Ray actors: starts the ranks together and waits for them with a deadline."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar, cast

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from agile_ray.errors import AgileError, DeadlineError, LearnerError
from agile_ray.ray_errors import explain
from agile_ray.record.roll_call import RollCall
from agile_ray.seeds import derive
from learner.actor import LearnerActor
from learner.messages import Device, RankSettings

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from learner.weights.buckets import BucketPlan

LOWER = "learner.micro_batch_tokens or learner.ranks"
"""What needs less memory on a rank's node when it is smaller."""

Result = TypeVar("Result")


class RankActors:
    """One actor per rank."""

    def __init__(self, *, ranks: int, device: Device, seed: int, deadline_s: float) -> None:
        """Create the actors; `start` makes them ready.

        Args:
            seed: root of the ranks' seeds.
            deadline_s: longest time that `wait` waits.
        """
        self._deadline_s = deadline_s
        kind = ray.remote(num_cpus=1, num_gpus=1 if device == "gpu" else 0)(LearnerActor)
        self.handles = [
            cast("ActorHandle", kind.remote(rank=rank, ranks=ranks, device=device, seed=derive(seed, "learner", rank)))
            for rank in range(ranks)
        ]

    def start(self, settings: RankSettings, roll_call: RollCall | None) -> "tuple[BucketPlan, ...]":
        """Let the ranks meet and load the model; returns the layout of the buckets that they publish.

        Args:
            settings: of every rank.
            roll_call: of the folder that the ranks save into; None if they save nothing.

        Raises:
            ConfigError: the folder holds no causal language model, or a rank's node does not share the run's folder.
            DeadlineError: the ranks did not meet in time.
            LearnerError: a rank died.
        """
        try:
            if roll_call is not None:
                names = [f"rank-{rank}" for rank in range(len(self.handles))]
                calls = zip(self.handles, names, strict=True)
                self.wait("answer", [actor.answer.remote(roll_call, name) for actor, name in calls])
                roll_call.check(names)
            address = self.wait("bind", [self.handles[0].bind.remote(self._deadline_s)])[0]
            return self.wait("start", [actor.start.remote(address, settings) for actor in self.handles])[0]
        except BaseException:
            self.shutdown()
            raise

    def wait(self, call: str, answers: "Sequence[ObjectRef[Result]]") -> list[Result]:
        """Wait until every rank has answered.

        Args:
            call: the name of the call, for error messages.

        Raises:
            AgileError: a rank raised it.
            DeadlineError: a rank is late.
            LearnerError: a rank died, or raised something else.
        """
        try:
            return ray.get(list(answers), timeout=self._deadline_s)
        except GetTimeoutError as error:
            raise DeadlineError(
                f"learner.{call}: every rank must answer within cluster.deadline_s ({self._deadline_s:g} s), one did "
                "not"
            ) from error
        except RayTaskError as error:
            if isinstance(error.cause, AgileError):
                raise error.cause from None
            raise LearnerError(
                f"learner.{call}: a rank failed, {type(error.cause).__name__}: {explain(error.cause, lower=LOWER)}"
            ) from error
        except (RayActorError, OutOfMemoryError) as error:
            raise LearnerError(
                f"learner.{call}: a rank's process died ({explain(error, lower=LOWER)}); the same run name resumes"
            ) from error
        except RayError as error:
            raise LearnerError(f"learner.{call}: {type(error).__name__}: {explain(error, lower=LOWER)}") from error

    def share(self, *values: object) -> "list[ObjectRef[object]]":
        """Put values into the object store, where every rank reads them.

        Raises:
            LearnerError: the store has no room.
        """
        try:
            return [ray.put(value) for value in values]
        except RayError as error:
            raise LearnerError(f"learner: {type(error).__name__}: {explain(error, lower=LOWER)}") from error

    def shutdown(self) -> None:
        """End the ranks' processes."""
        for actor in self.handles:
            ray.kill(actor)
