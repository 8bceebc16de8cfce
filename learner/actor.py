"""The Ray actor of one learner rank: a thin shell that loads torch and DeepSpeed in its own process only."""

import os
import zlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from agile_ray.errors import ConfigError, RankLateError
from agile_ray.record.roll_call import RollCall
from agile_ray.types import Int32
from agile_ray.weights import Probe
from learner.compiler.folder import choose_folder
from learner.compiler.lock import compile_alone
from learner.messages import Device, ImitationStep, PPOStep, RankScores, RankSettings, Sums
from learner.plan import MicroBatches
from learner.ragged import Ragged
from learner.targets import DemonstrationTargets, Targets

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]  as its documentation says

    from learner.rank import LearnerRank
    from learner.weights.buckets import BucketPlan, Bytes
    from learner.weights.nccl_sender import NCCLSender
    from learner.weights.rank_weights import RankWeights

MEETING_TRIES = 3
"""The deadline over the longest wait for reaching rank 0. torch may try twice before it gives up."""


class LearnerActor:
    """One rank. `RankActors` makes it a Ray actor.

    Call `bind` on rank 0, then `start` on all ranks, then the same methods on all ranks in the same order.
    """

    def __init__(self, *, rank: int, ranks: int, device: Device, seed: int) -> None:
        self._refused: ConfigError | None = None
        if device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"  # otherwise DeepSpeed takes any GPU it finds
            # By default idle threads spin, which slows a rank down tenfold when engines share its cores.
            os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        try:
            compile_alone(choose_folder())
        except ConfigError as error:  # `start` raises it: Ray makes a page of what a constructor raises
            self._refused = error
        self._rank = rank
        self._ranks = ranks
        self._seed = seed
        self._device: Device = device
        self._store: Store | None = None
        self._learner: LearnerRank | None = None
        self._weights: RankWeights | None = None
        self._sender: NCCLSender | None = None

    def answer(self, call: RollCall, name: str) -> None:
        """Show that this node sees the run's folder.

        Raises:
            ConfigError: it does not.
        """
        call.answer(name)

    def bind(self, deadline_s: float) -> tuple[str, int]:
        """On rank 0: open the store through which the ranks meet, on a free port; returns its host and port.

        Args:
            deadline_s: longest wait of a rank at the meeting point.
        """
        from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  as documented

        host = ray.util.get_node_ip_address()
        timeout = timedelta(seconds=deadline_s)
        store = TCPStore(host, 0, world_size=self._ranks, is_master=True, timeout=timeout, wait_for_workers=False)
        self._store = store
        return host, store.port

    def start(self, address: tuple[str, int], settings: RankSettings) -> "tuple[BucketPlan, ...]":
        """Join the other ranks and load the model; returns the layout of the published buckets.

        Args:
            address: what `bind` returned.

        Raises:
            ConfigError: the folder holds no causal language model, or DeepSpeed has no folder to compile in.
            RankLateError: rank 0 can't be reached.
        """
        if self._refused is not None:
            raise self._refused
        from transformers.utils.logging import disable_progress_bar

        from learner.engine import DeepSpeedEngine, RankInfo
        from learner.model import torch_dtype
        from learner.rank import LearnerRank
        from learner.weights.rank_weights import RankWeights

        disable_progress_bar()
        host, port = address
        store = self._store or self._meet(host, port, deadline_s=settings.deadline_s)
        info = RankInfo(rank=self._rank, ranks=self._ranks, store=store, device=self._device, seed=self._seed)
        engine = DeepSpeedEngine(settings, info)
        self._learner = LearnerRank(engine, settings)
        self._weights = RankWeights(engine, torch_dtype(settings.publish_dtype))
        return self._weights.plans

    def _meet(self, host: str, port: int, *, deadline_s: float) -> "Store":
        from torch.distributed import DistError, TCPStore  # pyright: ignore[reportPrivateImportUsage]  as documented

        limit_s = deadline_s / MEETING_TRIES
        try:
            return TCPStore(host, port, world_size=self._ranks, is_master=False, timeout=timedelta(seconds=limit_s))
        except DistError as error:
            raise RankLateError(
                f"learner.start: rank {self._rank} must reach rank 0 at {host}:{port} within {limit_s:g} s, a third of "
                "cluster.deadline_s, and did not; let the nodes reach one another on all ports"
            ) from error

    # Ray streams what a generator yields: None for each unit of work, then the result.

    def imitate(
        self, ragged: Ragged, targets: DemonstrationTargets, micro_batches: MicroBatches, step: ImitationStep
    ) -> "Iterator[Sums | None]":
        yield (yield from self._started_learner.imitate(ragged, targets, micro_batches, step))

    def learn(
        self, ragged: Ragged, targets: Targets, micro_batches: MicroBatches, step: PPOStep
    ) -> "Iterator[Sums | None]":
        yield (yield from self._started_learner.learn(ragged, targets, micro_batches, step))

    def score(self, ragged: Ragged, micro_batches: MicroBatches) -> "Iterator[RankScores | None]":
        yield (yield from self._started_learner.score(ragged, micro_batches))

    def set_reference(self, folder: Path) -> None:
        self._started_learner.set_reference(folder)

    def offload(self) -> None:
        self._started_learner.offload()

    def reload(self) -> None:
        self._started_learner.reload()

    def export(self, folder: Path) -> None:
        self._started_learner.export(folder)

    def save(self, folder: Path) -> None:
        self._started_learner.save(folder)

    def load(self, folder: Path) -> None:
        self._started_learner.load(folder)

    def probe(self, probes: Sequence[Int32]) -> tuple[Probe, ...]:
        return self._started_weights.probe(probes)

    def buckets(self) -> "Iterator[Bytes | list[int] | None]":
        """Yield the buckets on rank 0, None for each on the others, then the list of the buckets' checksums.

        Ray moves each into the object store before it asks for the next.
        """
        checksums: list[int] = []
        for bucket in self._started_weights.buckets():
            if bucket is not None:
                checksums.append(zlib.crc32(bucket.data))
            yield bucket
        yield checksums

    def connect(self, handles: "list[ActorHandle]", *, workers: int, deadline_s: float) -> None:
        """Open the nccl transport to the rollout actors.

        Args:
            handles: of the actors.
            workers: GPUs of all of them together.
            deadline_s: longest wait for one of their calls.
        """
        from learner.weights.nccl_sender import NCCLSender

        weights = self._started_weights
        self._sender = NCCLSender(weights, handles, rank=self._rank, workers=workers, deadline_s=deadline_s)

    def send(self) -> None:
        """Send the present weights through the nccl transport."""
        assert self._sender is not None, "Publisher checks that it is connected"
        self._sender.send()

    @property
    def _started_learner(self) -> "LearnerRank":
        assert self._learner is not None, "RankActors starts every rank before it returns"
        return self._learner

    @property
    def _started_weights(self) -> "RankWeights":
        assert self._weights is not None, "RankActors starts every rank before it returns"
        return self._weights
