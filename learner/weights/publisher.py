"""Publishes versions of the policy's weights to the rollout engines, by the configured transport.

    ray_shm   rank 0 packs the gathered weights into buckets; Ray's object store keeps them for whoever fetches them
    nccl      the ranks broadcast the weights straight into the engines' GPUs, once the engines have been probed with
              the old ones and call `WeightsRef.transfer` (not run)

Every version carries probes: token ids and the logprobs that the new weights give them. An engine that serves the
version must agree with them.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from agile_ray.errors import LearnerError
from agile_ray.types import Int32
from agile_ray.weights import Bucket, Probe, WeightsRef
from learner.messages import Yielded

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from learner.weights.buckets import BucketPlan

Result = TypeVar("Result")


class Ranks(Protocol):
    """The ranks' actors, and a way to wait for them."""

    handles: "list[ActorHandle]"

    def wait(self, call: str, answers: "Sequence[ObjectRef[Result]]") -> list[Result]: ...

    def follow(
        self, call: str, streams: "Sequence[Iterator[ObjectRef[Result | None]]]", *, unit: str
    ) -> list[Yielded[Result]]: ...


class Publisher:
    """The driver's side of publishing."""

    def __init__(
        self,
        ranks: Ranks,
        *,
        plans: "Sequence[BucketPlan]",
        transport: Literal["ray_shm", "nccl"],
        probes: Sequence[Int32],
        deadline_s: float,
    ) -> None:
        """Publish the weights of these ranks.

        Args:
            plans: the buckets' layout, as the ranks reported it.
            probes: token ids, int32 [T] each.
            deadline_s: longest wait of a rank for one call of the engines (nccl).
        """
        self._ranks = ranks
        self._plans = tuple(plans)
        self._transport = transport
        self._probes = tuple(probes)
        self._deadline_s = deadline_s
        self._connected = False

    def publish(self, version: int) -> WeightsRef:
        """Make the present weights available as a version.

        Raises:
            LearnerError: a rank died; or the transport is nccl and `connect` was never called.
            DeadlineError: a rank was late.
        """
        if self._transport == "nccl":
            if not self._connected:
                raise LearnerError(
                    "learner.publish: the nccl transport must be connected, found it closed; call connect"
                )
            return WeightsRef(version=version, buckets=(), blobs=(), probes=self._probe(), transfer=self._broadcast)
        streams = [actor.buckets.remote() for actor in self._ranks.handles]
        published: list[Yielded[list[int]]] = self._ranks.follow("publish", streams, unit="bucket")
        first = published[0]
        buckets = tuple(
            Bucket(index=index, size_bytes=plan.size_bytes, checksum=checksum, tensors=plan.tensors)
            for index, (plan, checksum) in enumerate(zip(self._plans, first.result, strict=True))
        )
        blobs = tuple(first.units)  # the driver owns them, so they outlive the ranks
        return WeightsRef(version=version, buckets=buckets, blobs=blobs, probes=self._probe())

    def connect(self, handles: "list[ActorHandle]", *, workers: int) -> None:
        """Open the nccl transport. Untested: it needs GPUs.

        Args:
            handles: rollout actors with vLLM's weight-transfer methods.
            workers: GPUs of all rollout actors together.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        calls = [
            actor.connect.remote(handles, workers=workers, deadline_s=self._deadline_s) for actor in self._ranks.handles
        ]
        self._ranks.wait("connect", calls)
        self._connected = True

    def _broadcast(self) -> None:
        self._ranks.wait("send", [actor.send.remote() for actor in self._ranks.handles])

    def _probe(self) -> tuple[Probe, ...]:
        return self._ranks.wait("probe", [actor.probe.remote(self._probes) for actor in self._ranks.handles])[0]
