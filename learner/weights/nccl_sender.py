"""The sender of the nccl transport: vLLM's trainer side, which broadcasts parameters into the engines' GPUs.

The only module of the learner that imports vLLM. Untested: it needs GPUs on both sides.
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

    from learner.weights.rank_weights import RankWeights


class NCCLSender:
    """One rank's part of a broadcast. All ranks construct it and send together; rank 0 talks to the engines."""

    def __init__(self, weights: "RankWeights", handles: "list[ActorHandle]", *, rank: int, workers: int) -> None:
        """Connect to the engines.

        Args:
            handles: rollout actors with vLLM's weight-transfer methods.
            workers: GPUs of all rollout actors together.
        """
        self._transfer: TrainerWeightTransferEngine = WeightTransferTrainerFactory.trainer_init(
            NCCLTrainerInitInfo(
                master_address=ray.util.get_node_ip_address(),
                master_port=get_open_port(),
                world_size=workers + 1,
                rank=rank,
            ),
            client=RayVLLMWeightSyncClient(handles),
            source=_Source(weights),
        )

    def send(self) -> None:
        """Start an update in every engine, broadcast the weights, and finish the update."""
        self._transfer.send_weights()


class _Source(WeightSource):
    """Complete parameters, gathered one at a time, under their Hugging Face names."""

    def __init__(self, weights: "RankWeights") -> None:
        self._weights = weights

    def metadata(self) -> list[ParamMeta]:
        specs = (spec for plan in self._weights.plans for spec in plan.tensors)
        return [ParamMeta(spec.name, self._weights.dtype, spec.shape) for spec in specs]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self._weights.parameters()
