"""vLLM weight-transfer backend `ray_shm`: packed buckets through shared memory into a live engine, all or nothing.

    learner                    rollout actor                        engine worker (this file)
    packs buckets,             fetches the bytes, copies each       maps the file, checks it, keeps it;
    puts them in Ray's    ->   bucket into an anonymous        ->   at `finish` loads all of them at once,
    object store               shared file, names it                while the scheduler is paused

The file has no name in /dev/shm: the worker opens it through the actor's /proc entry, so that nothing is left behind
however either of them dies, and a container's small /dev/shm does not matter.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from agile_ray.errors import SyncError
from agile_ray.weights import Bucket, TensorSpec
from rollout.weights.shared_memory import mapped
from rollout.weights.staging import Staging

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.config.weight_transfer import WeightTransferConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")


@dataclass
class NoInit(WeightTransferInitInfo):
    """There is nothing to agree on beforehand."""


@dataclass
class BucketInfo(WeightTransferUpdateInfo):
    """One bucket's place, and where its bytes lie. Plain values: it crosses processes as a message."""

    path: str  # of the shared file, for any process of this user on this machine
    count: int  # buckets of the version
    index: int
    size_bytes: int
    checksum: int
    tensors: list[tuple[str, str, list[int], int]]  # name, dtype, shape, offset in bytes

    def bucket(self) -> Bucket:
        """The bucket as the learner described it."""
        specs = (
            TensorSpec(name=name, dtype=dtype, shape=tuple(shape), offset_bytes=offset)
            for name, dtype, shape, offset in self.tensors
        )
        return Bucket(index=self.index, size_bytes=self.size_bytes, checksum=self.checksum, tensors=tuple(specs))


class RayShmEngine(WeightTransferEngine[NoInit, BucketInfo]):
    """Receives buckets in one worker. The base class's lifecycle: start, update per bucket, finish."""

    init_info_cls = NoInit
    update_info_cls = BucketInfo

    def __init__(
        self,
        config: "WeightTransferConfig",
        vllm_config: "VllmConfig",
        device: torch.device,
        model: torch.nn.Module,
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        tied = bool(getattr(self.model_config.hf_text_config, "tie_word_embeddings", False))
        self._needed = needed_parameters(Path(self.model_config.model), tied=tied)
        self._staging = Staging(self._needed)

    def init_transfer_engine(self, init_info: NoInit) -> None:
        """Nothing to open."""

    def start_weight_update(self) -> None:
        """Forget what an earlier, unfinished update left. The model is not touched before `finish_weight_update`."""
        self._staging = Staging(self._needed)

    def update_weights(self, update_info: dict[str, object]) -> None:
        """Take one bucket. The base class would wait for an accelerator, and there may be none."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: BucketInfo) -> None:
        """Map one bucket and check it.

        Raises:
            SyncError: it is refused; what was staged is dropped and the old version goes on serving.
        """
        try:
            self._staging.add(update_info.bucket(), mapped(update_info.path), count=update_info.count)
        except SyncError:
            self._staging = Staging(self._needed)
            raise

    def finish_weight_update(self) -> None:
        """Load the whole version into the model.

        Raises:
            SyncError: the version is not whole; the old one goes on serving.
        """
        if not self._staging.whole:
            raise SyncError("weights: finished before every bucket of the version arrived")
        initialize_layerwise_reload(self.model)
        self.model.load_weights(  # pyright: ignore[reportCallIssue]  every vLLM model has it
            (spec.name, torch.frombuffer(content, dtype=DTYPES[spec.dtype]).view(spec.shape))
            for spec, content in self._staging.parameters()
        )
        finalize_layerwise_reload(self.model, self.model_config)
        self._staging = Staging(self._needed)

    def shutdown(self) -> None:
        """Unmap what was staged."""
        self._staging = Staging(self._needed)


def needed_parameters(folder: Path, *, tied: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of what a whole version holds, by checkpoint name: the folder's own parameters.

    With a head that is `tied` to the embeddings, the head is sent by name too: after a reload vLLM would otherwise
    go on serving the old one.
    """
    needed: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            needed |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    embeddings = [shape for name, shape in needed.items() if name.endswith(EMBEDDINGS)]
    if tied and HEAD not in needed and embeddings:
        needed[HEAD] = embeddings[0]
    return needed
