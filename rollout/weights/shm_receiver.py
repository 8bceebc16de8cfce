"""vLLM weight-transfer backend `ray_shm`: loads the buckets of a version into a live engine, all or none.

    learner                    rollout actor (loader.py)            engine worker (this file)
    packs buckets,             fetches the bytes, copies each       maps the file, checks the bytes, keeps
    puts them in Ray's    ->   bucket into an anonymous        ->   them; `finish` loads all buckets while
    object store               shared file, sends its path          the scheduler is paused

The shared file has no name in /dev/shm. The worker opens it through the actor's /proc entry, so no file remains when
either process dies, and the size of a container's /dev/shm does not matter.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from agile_ray.errors import SyncError
from rollout.weights.bucket_message import BucketMessage
from rollout.weights.files import weight_shapes
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
    """This transport has nothing to set up."""


@dataclass(kw_only=True)
class BucketInfo(BucketMessage, WeightTransferUpdateInfo):
    """The message of one bucket, as vLLM's type."""


class RayShmEngine(WeightTransferEngine[NoInit, BucketInfo]):
    """Receives buckets in one worker: start, one update per bucket, finish."""

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
        """Do nothing: there is no connection to open."""

    def start_weight_update(self) -> None:
        """Drop what an earlier, unfinished update left. The model changes only in `finish_weight_update`."""
        self._staging = Staging(self._needed)

    def update_weights(self, update_info: dict[str, object]) -> None:
        """Take one bucket. Overridden because the base class synchronizes an accelerator, which a CPU lacks."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: BucketInfo) -> None:
        """Map one bucket and check it.

        Raises:
            SyncError: the bucket is refused; staged buckets are dropped and the old version is still served.
        """
        try:
            self._staging.add(update_info.bucket(), mapped(update_info.path), count=update_info.count)
        except SyncError:
            self._staging = Staging(self._needed)
            raise

    def finish_weight_update(self) -> None:
        """Load the whole version into the model.

        Raises:
            SyncError: the version is not complete; the old one is still served.
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
        """Unmap the staged buckets."""
        self._staging = Staging(self._needed)


def needed_parameters(folder: Path, *, tied: bool) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a complete version, by checkpoint name: the parameters in the model's folder.

    A head that is `tied` to the embeddings is a parameter of its own here: vLLM keeps serving the old head after a
    reload unless the head is sent by name.
    """
    needed = weight_shapes(folder)
    embeddings = [shape for name, shape in needed.items() if name.endswith(EMBEDDINGS)]
    if tied and HEAD not in needed and embeddings:
        needed[HEAD] = embeddings[0]
    return needed
