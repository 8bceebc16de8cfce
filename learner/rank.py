"""One learner rank: imitates, scores and learns on the micro-batches that it is dealt. Plain class, no Ray.

A = action tokens of one micro-batch, B = rows, T = tokens.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agile_ray.config import PPO, Learner
from agile_ray.types import Float32, Int32, TokenScores
from agile_ray.weights import Probe
from learner import losses
from learner.engine import Dtype, Engine, Place, torch_dtype
from learner.logprobs import token_logprobs
from learner.micro_batch import Batch, make_batch
from learner.model import Attention
from learner.ragged import Int64, Ragged, join_scores
from learner.reports import PlacedScores, Sums, add
from learner.steps import too_far
from learner.targets import DemonstrationTargets, Targets
from learner.weights.buckets import BucketPlan, Bytes, pack, plan_buckets

MicroBatches = Sequence[Int64]
"""Row numbers of each pass of one rank; an empty one keeps step with the other ranks."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
"""Endings of files that hold weights."""


class LearnerRank:
    """One rank's share of every call. All ranks make the same calls in the same order."""

    def __init__(
        self,
        folder: Path,
        *,
        learner: Learner,
        ppo: PPO,
        function_ids: Sequence[int],
        temperature: float,
        publish_dtype: Dtype,
        attention: Attention,
        place: Place,
    ) -> None:
        """Load the model's folder and join the other ranks.

        Args:
            function_ids: ids of the function tokens, where the entropy bonus applies.
            temperature: of sampling; logits are divided by it wherever PPO compares logprobs.
            publish_dtype: what the rollout engines serve.
            attention: transformers' name of the implementation.

        Raises:
            ConfigError: the folder holds no causal language model.
        """
        self._folder = folder
        self._ppo = ppo
        self._temperature = temperature
        self.publish_dtype = torch_dtype(publish_dtype)
        self._engine = Engine(folder, learner, place, attention=attention)
        self._functions = torch.tensor(list(function_ids), dtype=torch.int64, device=self._engine.device)
        # Tied embeddings appear under both names: an engine that is sent only one keeps the other's old values.
        self._parameters = dict(self._engine.language_model.named_parameters(remove_duplicate=False))

    def imitate(
        self,
        ragged: Ragged,
        targets: DemonstrationTargets,
        micro_batches: MicroBatches,
        *,
        value_coefficient: float,
        actions: int,
        learning_rate: float,
        dtype: Dtype,
    ) -> Sums:
        """Take one SFT step, of the policy and of its heads.

        Args:
            targets: of every action token of `ragged`.
            actions: action tokens of the step, over all ranks.
            dtype: of the matrix products.

        Raises:
            LearnerError: the loss or the gradient is not finite; no step was taken.
        """

        def loss(batch: Batch) -> tuple[Tensor, Sums]:
            predictions = self._engine.forward(batch, products=torch_dtype(dtype))
            logprobs_A = token_logprobs(predictions.logits, batch.actions, temperature=1.0)
            imitation = losses.cross_entropy(logprobs_A)
            returns_A = self._at(batch, targets.returns)
            value = losses.value_loss(predictions.own_values, returns_A=returns_A)
            auxiliary = losses.value_loss(predictions.auxiliary_values, returns_A=returns_A)
            write = losses.write_loss(predictions.write_logits, wrote_A=self._at(batch, targets.wrote))
            total = (
                imitation + value_coefficient * auxiliary + losses.DETACHED_HEAD_WEIGHT * (value + write)
            ) / actions
            metrics = _sums(loss=total, policy=imitation, value=value, write=write)
            return total, replace(metrics, actions=len(batch.places))

        return self._optimize("imitate", ragged, micro_batches, loss=loss, learning_rate=learning_rate)

    def learn(
        self,
        ragged: Ragged,
        targets: Targets,
        micro_batches: MicroBatches,
        *,
        actions: int,
        learning_rate: float,
        kl_coefficient: float,
    ) -> Sums:
        """Take one PPO step on one minibatch; where it finds the policy beyond `ppo.early_stop_kl`, no weight moves.

        Args:
            targets: of every action token of `ragged`.
            actions: action tokens of the minibatch, over all ranks.
            kl_coefficient: weight of the divergence from the reference in this update.

        Raises:
            LearnerError: the loss or the gradient is not finite; no step was taken.
        """

        def loss(batch: Batch) -> tuple[Tensor, Sums]:
            return self._ppo_loss(batch, targets, actions=actions, kl_coefficient=kl_coefficient)

        def held(sums: Sums) -> bool:
            everyone = Sums(loss=0.0, actions=actions, update_kl=self._engine.total(sums.update_kl))
            return too_far(everyone, self._ppo.early_stop_kl)

        return self._optimize("learn", ragged, micro_batches, loss=loss, learning_rate=learning_rate, held=held)

    def set_reference(self, folder: Path) -> None:
        """Load the frozen policy that PPO is kept near to.

        Raises:
            ConfigError: the folder holds no causal language model.
        """
        self._engine.set_reference(folder)

    @torch.no_grad()
    def score(self, ragged: Ragged, micro_batches: MicroBatches) -> PlacedScores:
        """What policy, reference and heads say of this rank's rows, in the order of the passes.

        Raises:
            LearnerError: `set_reference` was never called.
        """
        places: list[Int64] = []
        scores: list[TokenScores] = []
        for rows in micro_batches:
            batch = make_batch(ragged, rows, self._engine.device)
            predictions = self._engine.forward(batch)
            reference_AV = self._engine.reference_logits(batch)
            places.append(batch.places)
            scores.append(
                TokenScores(
                    logprobs=_numpy(self._logprobs(predictions.logits, batch)),
                    reference_logprobs=_numpy(self._logprobs(reference_AV, batch)),
                    own_values=_numpy(predictions.own_values),
                    write_probabilities=_numpy(predictions.write_logits.sigmoid()),
                )
            )
        return PlacedScores(places=np.concatenate(places), scores=join_scores(scores))

    @torch.no_grad()
    def probe(self, probes: Sequence[Int32]) -> tuple[Probe, ...]:
        """What the present weights think of these ids, at temperature 1."""
        return tuple(Probe(ids=ids, logprobs=self._probe(ids)) for ids in probes)

    def bucket_plans(self) -> tuple[BucketPlan, ...]:
        """Which parameters `buckets` packs where; the same for every version."""
        shapes = ((name, _shape(parameter)) for name, parameter in self._parameters.items())
        return plan_buckets(shapes, self.publish_dtype)

    def buckets(self) -> list[Bytes]:
        """Pack the present weights; rank 0 returns the buckets, the others help to gather and return none."""
        packed: list[Bytes] = []
        for plan in self.bucket_plans():
            parameters = [self._parameters[spec.name] for spec in plan.tensors]
            with self._engine.whole(set(parameters)):
                if self._engine.rank == 0:
                    packed.append(pack(plan, parameters, self.publish_dtype))
        return packed

    def whole_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every parameter whole, in the engines' dtype; all ranks iterate together."""
        for name, parameter in self._parameters.items():
            with self._engine.whole([parameter]):
                yield name, parameter.detach().to(self.publish_dtype)

    def reopen(self, ppo: PPO) -> None:
        """Serve another run's settings."""
        self._ppo = ppo

    def export(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder, with the source folder's tokenizer; rank 0 writes."""
        weights: dict[str, Tensor] = {}
        for name, parameter in self._engine.language_model.named_parameters():
            with self._engine.whole([parameter]):
                if self._engine.rank == 0:
                    weights[name] = parameter.detach().cpu().clone()
        if self._engine.rank == 0:
            self._engine.language_model.save_pretrained(folder, state_dict=weights)
            _copy_beside(self._folder, folder)

    def save(self, folder: Path) -> None:
        """Write this rank's shard of weights, critic and optimizer."""
        self._engine.save(folder)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            LearnerError: there is nothing of that kind, or it is another model's.
        """
        self._engine.load(folder)

    def _optimize(
        self,
        call: str,
        ragged: Ragged,
        micro_batches: MicroBatches,
        *,
        loss: Callable[[Batch], tuple[Tensor, Sums]],
        learning_rate: float,
        held: Callable[[Sums], bool] = lambda _: False,
    ) -> Sums:
        measured: list[Sums] = []
        for rows in micro_batches:
            total, sums = loss(make_batch(ragged, rows, self._engine.device))
            self._engine.backward(total)
            measured.append(sums)
        # A step of rate 0 clears the gradients and keeps the ranks together; the moments may see what it found.
        moves = 0.0 if held(add(measured, gradient_norm=0.0)) else 1.0
        norm = self._engine.step(
            [sums.loss for sums in measured],
            learning_rate=moves * learning_rate,
            critic_learning_rate=moves * self._ppo.critic_learning_rate,
            call=call,
        )
        return add(measured, gradient_norm=norm)

    def _ppo_loss(self, batch: Batch, targets: Targets, *, actions: int, kl_coefficient: float) -> tuple[Tensor, Sums]:
        ppo = self._ppo

        def of(array: Float32) -> Tensor:
            return self._at(batch, array)

        predictions = self._engine.forward(batch)
        logprobs_A = self._logprobs(predictions.logits, batch)
        functions_A = torch.isin(batch.actions, self._functions)
        with torch.set_grad_enabled(ppo.entropy_coefficient > 0):
            entropy = losses.function_entropy(predictions.logits, functions_A, temperature=self._temperature)
        policy = losses.clipped_policy_loss(
            logprobs_A,
            old_logprobs_A=of(targets.old_logprobs),
            importance_weights_A=of(targets.importance_weights),
            advantages_A=of(targets.advantages),
            clip=ppo.clip,
        )
        value = losses.clipped_value_loss(
            predictions.own_values,
            old_values_A=of(targets.own_values),
            returns_A=of(targets.own_returns),
            clip=losses.VALUE_CLIP,
        )
        auxiliary = losses.value_loss(predictions.auxiliary_values, returns_A=of(targets.own_returns))
        write = losses.write_loss(predictions.write_logits, wrote_A=of(targets.wrote))
        kl = losses.k3(logprobs_A, reference_logprobs_A=of(targets.reference_logprobs))
        move = losses.binary_kl(logprobs_A, old_logprobs_A=of(targets.old_logprobs))
        total = (
            policy.loss
            + ppo.value_coefficient * auxiliary
            + losses.DETACHED_HEAD_WEIGHT * (value + write)
            + kl_coefficient * kl
        )
        total = total + ppo.update_kl_coefficient * move
        total = (total - ppo.entropy_coefficient * entropy) / actions
        metrics = _sums(
            loss=total,
            functions=functions_A.float().sum(),
            policy=policy.loss,
            value=value,
            write=write,
            kl=kl,
            update_kl=policy.update_kl,
            entropy=entropy,
            clipped=policy.clipped,
            deviation=policy.deviation,
        )
        return total, replace(metrics, actions=len(batch.places))

    def _at(self, batch: Batch, array: Float32) -> Tensor:
        """What an array of all action tokens says of these, [A]."""
        return torch.from_numpy(array[batch.places]).to(self._engine.device)

    def _logprobs(self, logits_AV: Tensor, batch: Batch) -> Tensor:
        return token_logprobs(logits_AV, batch.actions, temperature=self._temperature)

    def _probe(self, ids: Int32) -> Float32:
        token_ids_T = torch.from_numpy(ids.astype(np.int64)).to(self._engine.device)
        batch = Batch(
            token_ids=token_ids_T.unsqueeze(0),
            predictors=torch.arange(len(ids) - 1, device=self._engine.device),
            actions=token_ids_T[1:],
            places=np.arange(len(ids) - 1),
        )
        logits_AV = self._engine.forward(batch).logits
        return np.concatenate([[np.float32(0)], _numpy(token_logprobs(logits_AV, batch.actions, temperature=1.0))])


def _sums(**metrics: Tensor) -> Sums:
    numbers = torch.stack(list(metrics.values())).detach().tolist()  # one wait for the device
    return Sums(**dict(zip(metrics, numbers, strict=True)))


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


def _shape(parameter: Tensor) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # a shard's own shape says nothing


def _copy_beside(source: Path, target: Path) -> None:
    """Copy what is neither weights nor already there: the tokenizer's files."""
    for file in source.iterdir():
        if file.is_file() and not file.name.endswith(WEIGHTS) and not (target / file.name).exists():
            shutil.copy2(file, target / file.name)
