"""The driver's handles of the ranks' Ray actors: starts the ranks together and waits for them with a deadline.

call                                     bounded by cluster.deadline_s
imitate, score, learn                    each micro-batch, with the ranks' exchange of gradients
publish                                  each bucket
start, load, save, export, set_reference,
offload, reload, probe, connect, send    the whole call: it takes as long as a model is large

So a call with much to do may take long. A rank that is stuck is late with its next unit; so are those that wait for it.

what comes of a call                                             error
a rank's process died, is late, or lost the others               RankLostError: `LearnerGroup.restart` may mend it
a rank raised an error on purpose: a loss that is not finite     that error
anything else: memory that does not suffice, a full disk, a bug  LearnerError
"""

import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from agile_ray.errors import AgileError, LearnerError, RankLateError, RankLostError, is_full_disk
from agile_ray.ray_errors import explain
from agile_ray.record.roll_call import RollCall
from agile_ray.seeds import derive
from learner.actor import LearnerActor
from learner.messages import Device, RankSettings, Yielded

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from learner.weights.buckets import BucketPlan

LOWER = "learner.micro_batch_tokens or learner.ranks"
"""What needs less memory on a rank's node when it is smaller."""

_NO_MEMORY = re.compile(r"out of memory|can(?:'t|not) allocate memory", re.IGNORECASE)

POLL_S = 0.5
"""Time between two looks at the deadlines, seconds."""

Result = TypeVar("Result")


class RankActors:
    """One actor per rank."""

    def __init__(
        self,
        *,
        ranks: int,
        device: Device,
        gpu_share: float,
        seed: int,
        deadline_s: float,
        places: "Sequence[PlacementGroupSchedulingStrategy] | None" = None,
    ) -> None:
        """Create the actors; `start` makes them ready.

        Args:
            gpu_share: what a rank takes of its GPU; 0 on a CPU.
            seed: root of the ranks' seeds.
            deadline_s: longest time that `wait` waits, and that `follow` waits for one unit.
            places: where each rank runs; None: wherever Ray finds room.
        """
        self._deadline_s = deadline_s
        kind = ray.remote(num_cpus=1, num_gpus=gpu_share)(LearnerActor)
        strategies = ["DEFAULT"] * ranks if places is None else places
        self.handles = [
            cast(
                "ActorHandle",
                kind.options(scheduling_strategy=strategy).remote(
                    rank=rank, ranks=ranks, device=device, seed=derive(seed, "learner", rank)
                ),
            )
            for rank, strategy in zip(range(ranks), strategies, strict=True)
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
            AgileError: a rank raised it on purpose.
            RankLateError: a rank is late.
            RankLostError: a rank died, or lost the others.
            LearnerError: a rank raised something else.
        """
        try:
            return ray.get(list(answers), timeout=self._deadline_s)
        except GetTimeoutError as error:
            _, missing = ray.wait(list(answers), num_returns=len(answers), timeout=0)
            late = [f"rank {rank}" for rank, answer in enumerate(answers) if answer in missing]
            raise RankLateError(
                f"learner.{call}: every rank must answer within cluster.deadline_s ({self._deadline_s:g} s), these did "
                f"not: {', '.join(late)}"
            ) from error
        except RayTaskError as error:
            if isinstance(error.cause, AgileError):
                raise error.cause from None
            kind = RankLostError if _may_pass(error.cause) else LearnerError
            raise kind(
                f"learner.{call}: a rank failed, {type(error.cause).__name__}: {explain(error.cause, lower=LOWER)}"
            ) from error
        except (RayActorError, OutOfMemoryError) as error:
            raise RankLostError(f"learner.{call}: a rank's process died ({explain(error, lower=LOWER)})") from error
        except RayError as error:  # also a node that is gone
            raise RankLostError(f"learner.{call}: {type(error).__name__}: {explain(error, lower=LOWER)}") from error

    def follow(
        self, call: str, streams: "Sequence[Iterator[ObjectRef[Result | None]]]", *, unit: str
    ) -> list[Yielded[Result]]:
        """Wait until every rank has yielded its units and then its result.

        Args:
            call: its name, for error messages.
            streams: one of each rank: what it yields, by reference.
            unit: what a rank yields something for, for error messages.

        Raises:
            AgileError: as `wait`.
            RankLateError: a rank takes longer than `deadline_s` for one unit.
        """
        yielded: list[list[ObjectRef[Result | None]]] = [[] for _ in streams]
        results: dict[int, Result] = {}
        late_at = [time.monotonic() + self._deadline_s] * len(streams)
        pending = dict(enumerate(streams))
        while pending:
            waiting = cast("list[ObjectRef[object]]", [*pending.values()])  # Ray takes streams, too
            ready, _ = ray.wait(waiting, num_returns=1, timeout=POLL_S, fetch_local=False)
            for rank in [rank for rank, stream in pending.items() if stream in ready]:
                item = next(pending[rank], None)
                if item is None:  # the stream has ended; its last item may be an error
                    del pending[rank]
                    results[rank] = cast("Result", self.wait(call, [yielded[rank].pop()])[0])
                else:
                    yielded[rank].append(item)
                    late_at[rank] = time.monotonic() + self._deadline_s
            now = time.monotonic()
            if late := [f"rank {rank} (after {len(yielded[rank])})" for rank in pending if now > late_at[rank]]:
                raise RankLateError(
                    f"learner.{call}: every rank must finish a {unit} within cluster.deadline_s "
                    f"({self._deadline_s:g} s), these did not finish the next one: {', '.join(late)}"
                )
        return [Yielded(units=units, result=results[rank]) for rank, units in enumerate(yielded)]

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
        """End the ranks' processes, whatever they do. A place is free for another rank once its process is gone."""
        for actor in self.handles:
            ray.kill(actor)


def _may_pass(error: BaseException) -> bool:
    """Whether fresh ranks may do better after an error that a rank did not raise on purpose.

    Connections that break and GPUs that fail are RuntimeErrors or OSErrors of libraries. Too little memory and a full
    disk would be found again.
    """
    return isinstance(error, RuntimeError | OSError) and not (is_full_disk(error) or _NO_MEMORY.search(str(error)))
