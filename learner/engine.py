"""One rank of a policy and its optimizer, sharded over ranks by DeepSpeed.

It needs no Ray: the caller provides a `torch.distributed` store through which the ranks meet. No other module imports
DeepSpeed. Dropout is off and the heads have the same initial weights on all ranks, so the seed only matters to models
that draw random numbers themselves.
"""

import glob
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import deepspeed
import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from agile_ray.config import Learner
from agile_ray.errors import LearnerError
from agile_ray.record.folder import CheckpointFolder
from learner.messages import Device, RankSettings
from learner.micro_batch import MicroBatch
from learner.model import (
    PolicyWithValue,
    Predictions,
    Weight,
    checkpoint_activations,
    load_language_model,
    plain_weights,
    torch_dtype,
)

if TYPE_CHECKING:
    from learner.lora import Adapter

TAG = "learners"
"""Name of the sharded state inside a checkpoint's folder."""

BETAS = (0.9, 0.95)
"""Decay rates of AdamW's moments. The second moment forgets quickly, so that a model from scratch keeps learning when
its gradients shrink."""

EPSILON = 1e-6
"""AdamW's epsilon. Smaller gradients are rounding noise, which a lower value would scale up to full steps: the update
would depend on how the rows are split into micro-batches. (Llama 2: 1e-5.)"""

MAX_GRAD_NORM = 1.0
"""Gradients with a larger norm are scaled down to it."""

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankInfo:
    """Which rank this is, and how it reaches the others."""

    rank: int
    ranks: int
    store: distributed.Store  # pyright: ignore[reportPrivateImportUsage]  as its documentation says
    device: Device
    seed: int


class DeepSpeedEngine:
    """One rank of the sharded policy. Every method is collective: all ranks call it, in the same order."""

    def __init__(self, settings: RankSettings, info: RankInfo) -> None:
        """Join the other ranks, load the model's folder and shard it.

        Raises:
            ConfigError: the folder holds no causal language model.
        """
        config = settings.learner
        self._settings = settings
        self._config = config
        self._ranks = info.ranks
        self.rank = info.rank
        self.device = torch.device("cuda", 0) if info.device == "gpu" else torch.device("cpu")
        self.global_step = 0  # optimizer steps taken
        _join(info, timeout=timedelta(seconds=settings.deadline_s))
        torch.manual_seed(info.seed)
        model = self._load(settings.folder)
        self.adapter = _adapter(model, settings)
        self.policy = PolicyWithValue(model, self.adapter)
        if self.adapter is not None:
            self.policy.register_state_dict_post_hook(_leave_out_frozen)
        if config.gradient_checkpointing:
            checkpoint_activations(self.language_model)
        trained = model.parameters() if self.adapter is None else self.adapter.trained().values()
        sizes = [_size(parameter) for parameter in self.policy.parameters() if parameter.requires_grad]
        self._engine, *_ = deepspeed.initialize(
            model=self.policy,
            model_parameters=[  # pyright: ignore[reportArgumentType]  groups, as for a torch optimizer
                {"params": list(trained)},
                {"params": self.policy.head_parameters()},
            ],
            config=_deepspeed_config(config, bucket_elements=min(sum(sizes), 50_000_000)),
        )
        self._reference: Callable[[Tensor, Tensor, torch.dtype], Tensor] | None = None

    @property
    def language_model(self) -> PreTrainedModel:
        """The transformers model inside the policy; its parameters may be shards."""
        return self.policy.language_model

    def forward(self, batch: MicroBatch, matmul_dtype: torch.dtype = torch.float32) -> Predictions:
        """Predict with gradient, or without under `torch.no_grad()`.

        Args:
            matmul_dtype: bfloat16 computes the matrix products of float32 weights in bfloat16 where the device has
                instructions for it, and in float32 elsewhere.
        """
        return self._engine(batch.token_ids, batch.logit_positions, self._fast(matmul_dtype))

    def backward(self, loss: Tensor) -> None:
        """Add this rank's share of the gradient. The gradients of all ranks and of all calls until `step` add up."""
        self._engine.backward(loss * self._ranks)  # DeepSpeed divides by the number of ranks

    def step(
        self, losses: Sequence[float], *, learning_rate: float, critic_learning_rate: float = 0.0, call: str
    ) -> float:
        """Take one optimizer step on the gradients of all `backward` calls since the last.

        Args:
            losses: of this rank, one for each `backward`.
            critic_learning_rate: of the value and write heads.
            call: the caller's method, for the error message.

        Returns:
            the gradient's norm before clipping.

        Raises:
            LearnerError: a loss or the norm is not finite on some rank; no parameter changed.
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
        """Add up a number over all ranks, in the order of the ranks."""
        return sum(self._gather(value))

    def set_reference(self, folder: Path) -> None:
        """Load the frozen reference policy; under ZeRO 3 it is sharded, as the policy is.

        With LoRA only the folder's adapter is loaded: the other weights are the policy's own.

        Raises:
            ConfigError: the folder holds no causal language model.
            LearnerError: the folder holds no adapter of this model (LoRA).
        """
        if self.adapter is not None:
            self._reference = _AdapterReference(self.policy, self.adapter, CheckpointFolder(folder).adapter)
            return
        reference = _Reference(self._load(folder))
        if self._config.zero_stage == 3:
            self._reference, *_ = deepspeed.initialize(model=reference, config=_frozen_deepspeed_config(self._config))
        else:
            self._reference = reference.to(self.device)

    def reference_logits(self, batch: MicroBatch, matmul_dtype: torch.dtype = torch.float32) -> Tensor:
        """The reference policy's logits at `logit_positions`, [A, V], without gradient.

        Args:
            matmul_dtype: as in `forward`.

        Raises:
            LearnerError: `set_reference` was never called.
        """
        if self._reference is None:
            raise LearnerError("learner.score: needs a reference policy, found none; call set_reference first")
        return self._reference(batch.token_ids, batch.logit_positions, self._fast(matmul_dtype))

    def weights(self, *, tied_twice: bool) -> dict[str, Weight]:
        """The policy's weights by their names in its folder, adapters merged.

        Args:
            tied_twice: tied parameters appear under both names.
        """
        weights = plain_weights(self.language_model, tied_twice=tied_twice)
        return weights if self.adapter is None else self.adapter.merge(weights)

    @contextmanager
    def gathered(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Inside the block every rank has these parameters complete, read-only."""
        with deepspeed.zero.GatheredParameters(list(parameters), enabled=self._config.zero_stage == 3):
            yield

    def offload(self) -> None:
        """Move everything of some size to main memory; nothing but `reload` may follow.

        DeepSpeed moves what it trains, under ZeRO 1 and 2: under ZeRO 3 it moves only its own Adam's states.
        """
        self._move_others("cpu")
        self._engine.offload_states(pin_memory=self.device.type == "cuda")

    def reload(self) -> None:
        """Move back what `offload` moved."""
        self._engine.reload_states()
        self._move_others(self.device)

    def _move_others(self, device: torch.device | str) -> None:
        """Move what DeepSpeed does not train: the reference, and with LoRA the frozen weights."""
        if isinstance(self._reference, nn.Module):
            self._reference.to(device)
        for parameter in self.policy.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(device)

    def save(self, folder: Path) -> None:
        """Write every rank's shard of what is trained, weights, heads and optimizer."""
        state = {"global_step": self.global_step, "base": self._base}
        self._engine.save_checkpoint(
            str(folder),
            tag=TAG,
            client_state=state,
            save_latest=False,
            exclude_frozen_parameters=self.adapter is not None,
        )

    def load(self, folder: Path) -> None:
        """Read what `save` wrote with the same number of ranks.

        Raises:
            LearnerError: the folder holds no such state, or that of another model.
        """
        try:
            with _without_patterns(folder) as plain:
                path, state = self._engine.load_checkpoint(plain, tag=TAG, custom_load_fn=self._load_fn)
        except RuntimeError as error:
            raise LearnerError(
                f"learner.load: {folder} must hold the state of this model and its heads, but {error}; a run can only "
                f"be resumed by the version of agile-ray that started it: start a new one"
            ) from error
        if path is None:
            raise LearnerError(f"learner.load: {folder} must hold the state of {self._ranks} ranks, found none")
        state = state or {}
        if state.get("base") != self._base:
            raise LearnerError(
                f"learner.load: {folder} must belong to the weights in model.path, found others; put the old model back"
            )
        self.global_step = int(state["global_step"])

    @property
    def _load_fn(self) -> "Callable[..., None] | None":
        return None if self.adapter is None else _load_trained

    @property
    def _base(self) -> int | None:
        """Identifies the weights that are not in checkpoints; None if all are."""
        return None if self.adapter is None else self.adapter.base

    def _fast(self, matmul_dtype: torch.dtype) -> torch.dtype:
        slow = matmul_dtype == torch.bfloat16 and not is_fast_in_bfloat16(self.device)
        return torch.float32 if slow else matmul_dtype

    def _load(self, folder: Path) -> PreTrainedModel:
        # transformers keeps a weak reference to this object and shards weights on loading for as long as it exists.
        sharded = HfDeepSpeedConfig(_frozen_deepspeed_config(self._config)) if self._config.zero_stage == 3 else None
        dtype = torch_dtype(self._config.dtype)
        model = load_language_model(folder, dtype=dtype, attention=self._settings.attention)
        del sharded
        return model

    def _gather(self, value: float) -> list[float]:
        mine = torch.tensor([value], dtype=torch.float64, device=self.device)
        everyone = [torch.empty_like(mine) for _ in range(self._ranks)]
        distributed.all_gather(everyone, mine)
        return [float(one) for one in everyone]


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions; without them PyTorch converts to and from float32, slowly."""
    if device.type != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def _without_patterns(folder: Path) -> Iterator[str]:
    """A path to a folder without [, ], * and ?, which DeepSpeed would take for patterns; valid within the block."""
    if glob.escape(str(folder)) == str(folder) or not folder.is_dir():
        yield str(folder)
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


class _Reference(nn.Module):
    """A frozen policy without a critic."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        super().__init__()
        self._policy = PolicyWithValue(language_model)
        self.requires_grad_(False).eval()

    def forward(self, token_ids_BT: Tensor, logit_positions_A: Tensor, matmul_dtype: torch.dtype) -> Tensor:
        return self._policy(token_ids_BT, logit_positions_A, matmul_dtype).logits


class _AdapterReference:
    """The policy, with other values of its adapter."""

    def __init__(self, policy: PolicyWithValue, adapter: "Adapter", folder: Path) -> None:
        self._policy, self._adapter = policy, adapter
        self._values = adapter.read(folder)

    @torch.no_grad()
    def __call__(self, token_ids_BT: Tensor, logit_positions_A: Tensor, matmul_dtype: torch.dtype) -> Tensor:
        with self._adapter.holding(self._values):
            return self._policy(token_ids_BT, logit_positions_A, matmul_dtype).logits


def _adapter(model: PreTrainedModel, settings: RankSettings) -> "Adapter | None":
    """Put LoRA into the model, if the run trains by it. DeepSpeed gives all ranks the initial values of rank 0."""
    rank = settings.learner.lora_rank
    if rank is None:
        return None
    from learner.lora import Adapter  # loads peft

    return Adapter(model, rank=rank, token_ids=settings.function_ids)


def _leave_out_frozen(module: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """Take frozen parameters out of a state dict; DeepSpeed by itself leaves in the second name of tied ones."""
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            state.pop(prefix + name, None)


def _load_trained(src: dict[str, Tensor], dst: nn.Module) -> None:
    """Load a state dict without frozen parameters; DeepSpeed names the arguments.

    Raises:
        RuntimeError: a trained parameter is missing, or another shape or name is there.
    """
    found = dst.load_state_dict(src, strict=False)
    frozen = {name for name, one in dst.named_parameters(remove_duplicate=False) if not one.requires_grad}
    if wrong := sorted({*found.missing_keys, *found.unexpected_keys} - frozen):
        raise RuntimeError(f"it differs in {len(wrong)} parameters ({wrong[0]}, ...)")


def _join(info: RankInfo, *, timeout: timedelta) -> None:
    os.environ.update(RANK=str(info.rank), WORLD_SIZE=str(info.ranks), LOCAL_RANK="0")  # DeepSpeed reads them
    backend = "nccl" if info.device == "gpu" else "gloo"
    if info.device == "gpu":
        torch.cuda.set_device(0)
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // info.ranks))
    if not distributed.is_initialized():
        distributed.init_process_group(
            backend, store=info.store, rank=info.rank, world_size=info.ranks, timeout=timeout
        )
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=timeout)


def _size(parameter: nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _deepspeed_config(config: Learner, *, bucket_elements: int) -> dict[str, object]:
    return _frozen_deepspeed_config(config) | {
        "managed_gradient_accumulation": False,  # every call of `step` ends the accumulation
        "gradient_clipping": MAX_GRAD_NORM,
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


def _frozen_deepspeed_config(config: Learner) -> dict[str, object]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # required but unused: the caller normalizes the losses
        "gradient_accumulation_steps": 1,
        "steps_per_print": None,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "zero_optimization": {"stage": config.zero_stage},
    }
