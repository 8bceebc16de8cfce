"""One learner rank: computes its micro-batches of every imitation step, PPO step and scoring pass. It needs no Ray.

These three are generators: they yield after each micro-batch, so that a caller sees progress, and return the result.

A = action tokens of one micro-batch, V = vocabulary.
"""

import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig

from agile_ray.record.folder import CheckpointFolder
from agile_ray.types import Int64, TokenScores
from learner.engine import DeepSpeedEngine
from learner.losses import token_logprobs
from learner.messages import ImitationStep, PPOStep, RankScores, RankSettings, Sums, add
from learner.micro_batch import MicroBatch, make_micro_batch
from learner.model import Weight, torch_dtype
from learner.objectives import imitation_loss, ppo_loss
from learner.plan import MicroBatches
from learner.ragged import Ragged, join_scores
from learner.steps import stops_early
from learner.targets import DemonstrationTargets, Targets

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
"""Endings of files that hold weights."""

Result = TypeVar("Result")
Steps = Generator[None, None, Result]
"""Yields after each micro-batch; returns the result."""


class LearnerRank:
    """One rank's share of every call. All ranks make the same calls in the same order."""

    def __init__(self, engine: DeepSpeedEngine, settings: RankSettings) -> None:
        self._engine = engine
        self._folder = settings.folder
        self._temperature = settings.temperature
        self._matmul_dtype = torch_dtype(settings.matmul_dtype)
        self._function_ids = torch.tensor(list(settings.function_ids), dtype=torch.int64, device=engine.device)

    def imitate(
        self, ragged: Ragged, targets: DemonstrationTargets, micro_batches: MicroBatches, step: ImitationStep
    ) -> Steps[Sums]:
        """Take one SFT step, of the policy and of its heads.

        Args:
            targets: of all action tokens of `ragged`.
            micro_batches: this rank's part of the step.

        Raises:
            LearnerError: the loss or the gradient is not finite; no step was taken.
        """
        matmul_dtype = torch_dtype(step.imitation.dtype)

        def loss(batch: MicroBatch) -> tuple[Tensor, Sums]:
            return imitation_loss(self._engine.forward(batch, matmul_dtype), batch, targets, step)

        sums = yield from self._accumulate(ragged, micro_batches, loss)
        norm = self._engine.step(
            [measured.loss for measured in sums],
            learning_rate=step.learning_rate,
            critic_learning_rate=step.critic_learning_rate,
            call="imitate",
        )
        return add(sums, gradient_norm=norm)

    def learn(self, ragged: Ragged, targets: Targets, micro_batches: MicroBatches, step: PPOStep) -> Steps[Sums]:
        """Take one PPO step. The weights stay unchanged if the policy has moved further than `ppo.early_stop_kl`.

        Args:
            targets: of all action tokens of `ragged`.
            micro_batches: this rank's part of the step.

        Raises:
            LearnerError: the loss or the gradient is not finite; no step was taken.
        """

        def loss(batch: MicroBatch) -> tuple[Tensor, Sums]:
            return ppo_loss(
                self._engine.forward(batch, self._matmul_dtype),
                batch,
                targets,
                step,
                function_ids=self._function_ids,
                temperature=self._temperature,
            )

        sums = yield from self._accumulate(ragged, micro_batches, loss)
        update_kl = self._engine.total(add(sums, gradient_norm=0.0).update_kl)
        over_all_ranks = Sums(loss=0.0, actions=step.actions, update_kl=update_kl)
        # With learning rate 0 a step keeps the weights, yet clears the gradients and keeps the ranks in step. It still
        # updates Adam's moments.
        scale = 0.0 if stops_early(over_all_ranks, step.ppo.early_stop_kl) else 1.0
        norm = self._engine.step(
            [measured.loss for measured in sums],
            learning_rate=scale * step.learning_rate,
            critic_learning_rate=scale * step.ppo.critic_learning_rate,
            call="learn",
        )
        return add(sums, gradient_norm=norm)

    def set_reference(self, folder: Path) -> None:
        """Load the frozen reference policy.

        Raises:
            ConfigError: the folder holds no causal language model.
            LearnerError: the folder holds no adapter of this model (LoRA).
        """
        self._engine.set_reference(folder)

    @torch.no_grad()
    def score(self, ragged: Ragged, micro_batches: MicroBatches) -> Steps[RankScores]:
        """Score this rank's rows with the policy, the reference policy and the heads.

        Raises:
            LearnerError: `set_reference` was never called.
        """
        indices: list[Int64] = []
        scores: list[TokenScores] = []
        for rows in micro_batches:
            batch = make_micro_batch(ragged, rows, self._engine.device)
            predictions = self._engine.forward(batch, self._matmul_dtype)
            reference_AV = self._engine.reference_logits(batch, self._matmul_dtype)
            indices.append(batch.indices)
            scores.append(
                TokenScores(
                    logprobs=_numpy(self._logprobs(predictions.logits, batch)),
                    reference_logprobs=_numpy(self._logprobs(reference_AV, batch)),
                    own_values=_numpy(predictions.own_values),
                    write_probabilities=_numpy(predictions.write_logits.sigmoid()),
                )
            )
            yield
        return RankScores(indices=np.concatenate(indices), scores=join_scores(scores))

    def offload(self) -> None:
        """Move weights, optimizer and reference to main memory; nothing but `reload` may follow."""
        self._engine.offload()

    def reload(self) -> None:
        """Move back what `offload` moved."""
        self._engine.reload()

    def export(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder, with the source folder's tokenizer; rank 0 writes.

        Of the source's generation_config only the tokens are kept: programs that serve the folder would sample by it,
        unlike the agent.

        With LoRA the weights are merged, and the adapter goes into `adapter/`, as peft reads it.
        """
        model, writes = self._engine.language_model, self._engine.rank == 0
        weights: dict[str, Tensor] = {}
        for name, weight in self._engine.weights(tied_twice=False).items():
            with self._engine.gathered([weight.parameter]):
                if writes:
                    weights[name] = _own(weight)
        if writes:
            model.generation_config = _only_tokens(model.generation_config)
            model.save_pretrained(folder, state_dict=weights)
            _copy_other_files(self._folder, folder)
            if self._engine.adapter is not None:
                self._engine.adapter.save(CheckpointFolder(folder).adapter)

    def save(self, folder: Path) -> None:
        """Write this rank's shard of weights, heads and optimizer."""
        self._engine.save(folder)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            LearnerError: the folder holds no such state, or that of another model.
        """
        self._engine.load(folder)

    def _accumulate(
        self, ragged: Ragged, micro_batches: MicroBatches, loss: Callable[[MicroBatch], tuple[Tensor, Sums]]
    ) -> Steps[list[Sums]]:
        """Add up the gradients of all micro-batches; returns what each of them measured."""
        sums: list[Sums] = []
        for rows in micro_batches:
            total, measured = loss(make_micro_batch(ragged, rows, self._engine.device))
            self._engine.backward(total)
            sums.append(measured)
            yield
        return sums

    def _logprobs(self, logits_AV: Tensor, batch: MicroBatch) -> Tensor:
        return token_logprobs(logits_AV, batch.actions, temperature=self._temperature)


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


def _own(weight: Weight) -> Tensor:
    """A weight in main memory, copied if it is a part of DeepSpeed's flat arrays, which can't be saved one by one."""
    value = weight.value().cpu()
    return value.clone() if weight.change is None and weight.parameter.requires_grad else value


def _only_tokens(config: GenerationConfig | None) -> GenerationConfig:
    if config is None:
        return GenerationConfig()
    return GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )


def _copy_other_files(source: Path, target: Path) -> None:
    """Copy the visible files that `target` lacks and that hold no weights, such as the tokenizer's."""
    for file in source.iterdir():
        left_out = file.name.startswith(".") or file.name.endswith(WEIGHT_SUFFIXES)
        if file.is_file() and not left_out and not (target / file.name).exists():
            shutil.copy2(file, target / file.name)
