"""The one door to DeepSpeed: a policy sharded over ranks, and the optimizer that moves it.

Works without Ray: whoever builds it brings a `torch.distributed` store through which the ranks find one another.
Dropout is off and the heads start alike on all ranks, so only a model that draws numbers uses the seed.
"""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import deepspeed
import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from agile_ray.config import Learner
from agile_ray.errors import LearnerError
from learner.micro_batch import Batch
from learner.model import Attention, PolicyWithValue, Predictions, load_language_model

Device = Literal["cpu", "gpu"]
Dtype = Literal["float32", "bfloat16"]

TAG = "learners"
"""Names the sharded state inside a checkpoint's folder."""

BETAS = (0.9, 0.95)
"""Of AdamW: the variance forgets fast, so that a model from scratch keeps learning when its gradients shrink."""

EPSILON = 1e-6
"""Of AdamW. A gradient below it is rounding noise, which AdamW would scale up to whole steps: at 1e-8, other
micro-batches alone moved single parameters by 1e-4 in four steps of learning rate 3e-3; at 1e-6 by 2e-6. (Llama 2 took
1e-5.)"""

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rank stands among the others."""

    rank: int
    ranks: int
    store: distributed.Store  # pyright: ignore[reportPrivateImportUsage]  as its documentation says
    device: Device
    seed: int
    deadline_s: float  # longest wait for the other ranks to join


class Engine:
    """One rank of the sharded policy. Every method is a meeting: all ranks call it, in the same order."""

    def __init__(self, folder: Path, config: Learner, place: Place, *, attention: Attention) -> None:
        """Join the other ranks, load the model's folder, shard it.

        Args:
            attention: transformers' name of the implementation.

        Raises:
            ConfigError: the folder holds no causal language model.
        """
        self._config = config
        self._folder = folder
        self._attention: Attention = attention
        self._ranks = place.ranks
        self.rank = place.rank
        self.device = torch.device("cuda", 0) if place.device == "gpu" else torch.device("cpu")
        self.dtype = torch_dtype(config.dtype)
        self.global_step = 0  # optimizer steps taken
        _join(place, timeout=timedelta(seconds=place.deadline_s))
        torch.manual_seed(place.seed)
        self.policy = PolicyWithValue(self._load(folder))
        if config.gradient_checkpointing:
            self.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        sizes = [_size(parameter) for parameter in self.policy.parameters()]
        self._engine, *_ = deepspeed.initialize(
            model=self.policy,
            model_parameters=[  # pyright: ignore[reportArgumentType]  groups, as for a torch optimizer
                {"params": list(self.language_model.parameters())},
                {"params": self.policy.head_parameters()},
            ],
            config=_settings(config, bucket_elements=min(sum(sizes), 50_000_000)),
        )
        self._reference: nn.Module | None = None

    @property
    def language_model(self) -> PreTrainedModel:
        """The policy as transformers knows it; its parameters may be shards."""
        return self.policy.language_model

    def forward(self, batch: Batch, products: torch.dtype = torch.float32) -> Predictions:
        """Predict with gradient, or without under `torch.no_grad()`.

        Args:
            products: bfloat16 takes the matrix products of float32 weights in it, where the device is fast at that.
        """
        if products == torch.bfloat16 and not is_fast_in_bfloat16(self.device):
            products = torch.float32
        return self._engine(batch.token_ids, batch.predictors, products)

    def backward(self, loss: Tensor) -> None:
        """Add this rank's share of the gradient. Losses of all ranks and calls until `step` add up."""
        # DeepSpeed divides by the number of ranks.
        self._engine.backward(loss * self._ranks)

    def step(
        self, losses: Sequence[float], *, learning_rate: float, critic_learning_rate: float = 0.0, call: str
    ) -> float:
        """Take one optimizer step on the gradients of all `backward` calls since the last.

        Args:
            losses: this rank's, one for each `backward`.
            critic_learning_rate: of the heads of value and write.
            call: what the learners are doing, for the error.

        Returns:
            the gradient's norm before clipping.

        Raises:
            LearnerError: a loss or the norm is not finite on some rank. No parameter has moved.
        """
        totals = self._gather(sum(losses))
        where = f"learner.{call}: optimizer step {self.global_step + 1}"
        bad = [f"rank {rank}: {total}" for rank, total in enumerate(totals) if not math.isfinite(total)]
        if bad:
            raise LearnerError(f"{where}: every loss must be finite, found {', '.join(bad)}; no step was taken")
        groups = self._engine.optimizer.param_groups  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        for group, rate in zip(groups, (learning_rate, critic_learning_rate), strict=True):
            group["lr"] = rate
        self._engine.step()  # skips by itself where the norm is not finite
        norm = float(self._engine.get_global_grad_norm() or 0.0)
        if not self._engine.was_step_applied():
            raise LearnerError(
                f"{where}: the gradient's norm must be finite, found {norm} (rank {self.rank}, losses {totals}); "
                "no step was taken"
            )
        self.global_step += 1
        return norm

    def total(self, value: float) -> float:
        """Add up a number over all ranks, in their order."""
        return sum(self._gather(value))

    def set_reference(self, folder: Path) -> None:
        """Load a frozen copy of a policy, sharded where the policy is.

        Raises:
            ConfigError: the folder holds no causal language model.
        """
        reference = _Reference(self._load(folder))
        if self._config.zero_stage == 3:
            self._reference, *_ = deepspeed.initialize(model=reference, config=_frozen_settings(self._config))
        else:
            self._reference = reference.to(self.device)

    def reference_logits(self, batch: Batch) -> Tensor:
        """The frozen policy's logits at the predictors, [A, V].

        Raises:
            LearnerError: `set_reference` was never called.
        """
        if self._reference is None:
            raise LearnerError("learner.score: there is no reference policy; call set_reference first")
        return self._reference(batch.token_ids, batch.predictors)

    @contextmanager
    def whole(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Hold these parameters whole on every rank, read-only, for as long as the block lasts."""
        with deepspeed.zero.GatheredParameters(list(parameters), enabled=self._config.zero_stage == 3):
            yield

    def save(self, folder: Path) -> None:
        """Write every rank's shard of weights, heads and optimizer."""
        self._engine.save_checkpoint(
            str(folder), tag=TAG, client_state={"global_step": self.global_step}, save_latest=False
        )

    def load(self, folder: Path) -> None:
        """Read what `save` wrote with as many ranks.

        Raises:
            LearnerError: there is nothing of that kind, or it is another model's.
        """
        try:
            path, state = self._engine.load_checkpoint(str(folder), tag=TAG)
        except RuntimeError as error:
            raise LearnerError(
                f"learner.load: {folder} must hold the state of this model and its heads, but {error}; a run goes on "
                f"under the version of agile-ray that began it: start a new one"
            ) from error
        if path is None:
            raise LearnerError(f"learner.load: {folder} holds no state of {self._ranks} ranks")
        self.global_step = int((state or {})["global_step"])

    def _load(self, folder: Path) -> PreTrainedModel:
        # Of this object transformers keeps a weak reference: while it lives, weights are sharded as they load.
        sharded = HfDeepSpeedConfig(_frozen_settings(self._config)) if self._config.zero_stage == 3 else None
        model = load_language_model(folder, dtype=self.dtype, attention=self._attention)
        del sharded
        return model

    def _gather(self, value: float) -> list[float]:
        mine = torch.tensor([value], dtype=torch.float64, device=self.device)
        everyone = [torch.empty_like(mine) for _ in range(self._ranks)]
        distributed.all_gather(everyone, mine)
        return [float(one) for one in everyone]


def torch_dtype(name: Dtype) -> torch.dtype:
    """What a configuration's dtype is called in torch."""
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; without them PyTorch converts to float32 and back, and loses time."""
    if device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class _Reference(nn.Module):
    """A policy without a critic."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        super().__init__()
        self._policy = PolicyWithValue(language_model)
        self.requires_grad_(False).eval()

    def forward(self, token_ids_BT: Tensor, predictors_A: Tensor) -> Tensor:
        return self._policy(token_ids_BT, predictors_A).logits


def _join(place: Place, *, timeout: timedelta) -> None:
    os.environ.update(RANK=str(place.rank), WORLD_SIZE=str(place.ranks), LOCAL_RANK="0")  # DeepSpeed reads them
    backend = "nccl" if place.device == "gpu" else "gloo"
    if place.device == "gpu":
        torch.cuda.set_device(0)
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // place.ranks))
    if not distributed.is_initialized():
        distributed.init_process_group(
            backend, store=place.store, rank=place.rank, world_size=place.ranks, timeout=timeout
        )
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=timeout)


def _size(parameter: nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _settings(config: Learner, *, bucket_elements: int) -> dict[str, object]:
    return _frozen_settings(config) | {
        "managed_gradient_accumulation": False,  # `step` ends the accumulation, whenever it is called
        "gradient_clipping": config.max_grad_norm,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "torch_adam": True,
                "lr": 0.0,
                "betas": BETAS,
                "eps": EPSILON,
                "weight_decay": 0.0,
            },
        },
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket_elements,
        },
    }


def _frozen_settings(config: Learner) -> dict[str, object]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # unused: losses are sums, normalized by the caller
        "gradient_accumulation_steps": 1,
        "steps_per_print": None,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "zero_optimization": {"stage": config.zero_stage},
    }
