"""A Ray actor around one learner rank: a thin shell that loads torch and DeepSpeed in its own process only."""

import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import ray

from agile_ray.config import PPO, Learner
from agile_ray.types import Int32
from agile_ray.weights import Probe

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]  as its documentation says

    from learner.engine import Dtype
    from learner.model import Attention
    from learner.plan import Int64
    from learner.ragged import Ragged
    from learner.rank import LearnerRank
    from learner.reports import PlacedScores, Sums
    from learner.targets import DemonstrationTargets, Targets
    from learner.weights.buckets import BucketPlan, Bytes
    from learner.weights.nccl_sender import NCCLSender


class LearnerActor:
    """One rank. Ray makes it an actor with `ray.remote`.

    Call `bind` on rank 0, then `start` on all at once, then the same methods on all in one order.
    """

    def __init__(self, *, rank: int, ranks: int, device: Literal["cpu", "gpu"], seed: int, deadline_s: float) -> None:
        if device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed would take a GPU that this rank was not given
            # Threads that spin while they wait cost a rank ten times its speed when engines share its cores.
            os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        # What DeepSpeed compiles knows the place of this environment's headers; shared with another, it is made anew.
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", os.path.join(sys.prefix, "torch_extensions"))
        self._rank = rank
        self._ranks = ranks
        self._seed = seed
        self._deadline_s = deadline_s
        self._device: Literal["cpu", "gpu"] = device
        self._store: Store | None = None
        self._learner: LearnerRank | None = None
        self._sender: NCCLSender | None = None

    def bind(self) -> tuple[str, int]:
        """Open the ranks' meeting point on a free port of this node, and say where it is."""
        from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  as documented

        host = ray.util.get_node_ip_address()
        store = TCPStore(host, 0, world_size=self._ranks, is_master=True, wait_for_workers=False)
        self._store = store
        return host, store.port

    def start(
        self,
        address: tuple[str, int],
        folder: Path,
        *,
        learner: Learner,
        ppo: PPO,
        function_ids: Sequence[int],
        temperature: float,
        publish_dtype: "Dtype",
        attention: "Attention",
    ) -> "tuple[BucketPlan, ...]":
        """Load the model's folder and join the other ranks; returns how a version is packed."""
        from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  as documented
        from transformers.utils.logging import disable_progress_bar

        from learner.engine import Place
        from learner.rank import LearnerRank

        disable_progress_bar()
        host, port = address
        store = self._store or TCPStore(host, port, world_size=self._ranks, is_master=False)
        self._learner = LearnerRank(
            folder,
            learner=learner,
            ppo=ppo,
            function_ids=function_ids,
            temperature=temperature,
            publish_dtype=publish_dtype,
            attention=attention,
            place=Place(
                rank=self._rank,
                ranks=self._ranks,
                store=store,
                device=self._device,
                seed=self._seed,
                deadline_s=self._deadline_s,
            ),
        )
        return self._learner.bucket_plans()

    def imitate(
        self,
        ragged: "Ragged",
        targets: "DemonstrationTargets",
        micro_batches: "Sequence[Int64]",
        *,
        value_coefficient: float,
        actions: int,
        learning_rate: float,
        dtype: "Dtype",
    ) -> "Sums":
        return self._started.imitate(
            ragged,
            targets,
            micro_batches,
            value_coefficient=value_coefficient,
            actions=actions,
            learning_rate=learning_rate,
            dtype=dtype,
        )

    def learn(
        self,
        ragged: "Ragged",
        targets: "Targets",
        micro_batches: "Sequence[Int64]",
        *,
        actions: int,
        learning_rate: float,
        kl_coefficient: float,
    ) -> "Sums":
        return self._started.learn(
            ragged,
            targets,
            micro_batches,
            actions=actions,
            learning_rate=learning_rate,
            kl_coefficient=kl_coefficient,
        )

    def set_reference(self, folder: Path) -> None:
        self._started.set_reference(folder)

    def score(self, ragged: "Ragged", micro_batches: "Sequence[Int64]") -> "PlacedScores":
        return self._started.score(ragged, micro_batches)

    def probe(self, probes: Sequence[Int32]) -> tuple[Probe, ...]:
        return self._started.probe(probes)

    def buckets(self) -> "tuple[list[int], *tuple[Bytes, ...]]":
        """On rank 0: the checksums, then each bucket as a return value of its own."""
        packed = self._started.buckets()
        return [zlib.crc32(bucket.data) for bucket in packed], *packed

    def help_buckets(self) -> None:
        """On the other ranks: bring their shards to rank 0."""
        self._started.buckets()

    def connect(self, handles: "list[ActorHandle]", *, workers: int) -> None:
        """Open the nccl transport to the rollout actors."""
        from learner.weights.nccl_sender import NCCLSender

        self._sender = NCCLSender(self._started, handles, rank=self._rank, workers=workers)

    def send(self) -> None:
        """Send the present weights through the nccl transport."""
        assert self._sender is not None, "LearnerGroup.publish checks that it is connected"
        self._sender.send()

    def reopen(self, ppo: PPO) -> None:
        self._started.reopen(ppo)

    def export(self, folder: Path) -> None:
        self._started.export(folder)

    def save(self, folder: Path) -> None:
        self._started.save(folder)

    def load(self, folder: Path) -> None:
        self._started.load(folder)

    @property
    def _started(self) -> "LearnerRank":
        assert self._learner is not None, "LearnerGroup starts every rank before it returns"
        return self._learner
