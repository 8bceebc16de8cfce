"""The sender of the nccl transport: vLLM's trainer side, which broadcasts parameters into the engines' GPUs.

The only module of the learner that imports vLLM. Untested: it needs GPUs on both sides.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import ray
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerWeightTransferEngine,
    WeightSource,
    WeightTransferInitRequest,
    WeightTransferUpdatePayload,
    WeightTransferUpdateRequest,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
from vllm.utils.network_utils import get_open_port

from learner.weights.engine_calls import ask_all

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from learner.weights.rank_weights import RankWeights


class NCCLSender:
    """One rank's part of a broadcast. All ranks construct it and send together; rank 0 talks to the engines."""

    def __init__(
        self, weights: "RankWeights", handles: "list[ActorHandle]", *, rank: int, workers: int, deadline_s: float
    ) -> None:
        """Connect to the engines. vLLM waits at most 300 s for all of them to meet.

        Args:
            handles: rollout actors with vLLM's weight-transfer methods.
            workers: GPUs of all rollout actors together.
            deadline_s: longest wait for one call of the actors.
        """
        self._transfer: TrainerWeightTransferEngine = WeightTransferTrainerFactory.trainer_init(
            NCCLTrainerInitInfo(
                master_address=ray.util.get_node_ip_address(),
                master_port=get_open_port(),
                world_size=workers + 1,
                rank=rank,
            ),
            client=_Engines(handles, deadline_s=deadline_s),
            source=_Source(weights),
        )

    def send(self) -> None:
        """Start an update in every engine, broadcast the weights, and finish the update."""
        self._transfer.send_weights()


class _Engines:
    """vLLM's `VLLMWeightSyncClient` on rollout actors: each call goes to all of them, and has a deadline."""

    def __init__(self, handles: "list[ActorHandle]", *, deadline_s: float) -> None:
        self._handles = handles
        self._deadline_s = deadline_s

    def init_weight_transfer_engine(self, init_info: dict[str, object]) -> None:
        request = WeightTransferInitRequest(init_info=init_info)
        answers = [handle.init_weight_transfer_engine.remote(request) for handle in self._handles]
        ask_all("init_weight_transfer_engine", answers, deadline_s=self._deadline_s)

    def shutdown_weight_transfer_engine(self) -> None:
        """Do nothing: the engines end with their actors."""

    def start_weight_update(self) -> None:
        answers = [handle.start_weight_update.remote() for handle in self._handles]
        ask_all("start_weight_update", answers, deadline_s=self._deadline_s)

    def update_weights(self, update_info: WeightTransferUpdatePayload) -> None:
        request = WeightTransferUpdateRequest(update_info=update_info)
        answers = [handle.update_weights.remote(request) for handle in self._handles]
        ask_all("update_weights", answers, deadline_s=self._deadline_s)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Load what came; the actors name the version themselves, once the learner has answered the driver."""
        del weight_version
        answers = [handle.finish_weight_update.remote() for handle in self._handles]
        ask_all("finish_weight_update", answers, deadline_s=self._deadline_s)


class _Source(WeightSource):
    """Complete parameters, gathered one at a time, under their Hugging Face names."""

    def __init__(self, weights: "RankWeights") -> None:
        self._weights = weights

    def metadata(self) -> list[ParamMeta]:
        specs = (spec for plan in self._weights.plans for spec in plan.tensors)
        return [ParamMeta(spec.name, self._weights.dtype, spec.shape) for spec in specs]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self._weights.parameters()
