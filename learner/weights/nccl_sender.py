"""The nccl transport: vLLM's own trainer side, which broadcasts parameters straight into the engines' GPUs.

The only file of the learner that knows vLLM. It needs GPUs on both sides: not run here.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import ray
from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta, TrainerWeightTransferEngine, WeightSource
from vllm.distributed.weight_transfer.clients import RayVLLMWeightSyncClient
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
from vllm.utils.network_utils import get_open_port

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from learner.rank import LearnerRank


class NCCLSender:
    """One rank's part of a broadcast; all ranks build it and send together, rank 0 talks to the engines."""

    def __init__(self, learner: "LearnerRank", handles: "list[ActorHandle]", *, rank: int, workers: int) -> None:
        """Meet the engines.

        Args:
            handles: rollout actors with vLLM's weight-transfer methods.
            workers: GPUs that serve, over all actors.
        """
        self._transfer: TrainerWeightTransferEngine = WeightTransferTrainerFactory.trainer_init(
            NCCLTrainerInitInfo(
                master_address=ray.util.get_node_ip_address(),
                master_port=get_open_port(),
                world_size=workers + 1,
                rank=rank,
            ),
            client=RayVLLMWeightSyncClient(handles),
            source=_Source(learner),
        )

    def send(self) -> None:
        """Start an update in every engine, broadcast, finish it."""
        self._transfer.send_weights()


class _Source(WeightSource):
    """Whole parameters, gathered one at a time, under their Hugging Face names."""

    def __init__(self, learner: "LearnerRank") -> None:
        self._learner = learner

    def metadata(self) -> list[ParamMeta]:
        dtype = self._learner.publish_dtype
        specs = (spec for plan in self._learner.bucket_plans() for spec in plan.tensors)
        return [ParamMeta(spec.name, dtype, spec.shape) for spec in specs]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self._learner.whole_parameters()
