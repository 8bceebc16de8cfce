"""The learners as the loop sees them: one policy and its critic, sharded over ranks that the caller never sees.

    driver (this file)                              ranks
    concatenates segments into flat arrays,         read the flat arrays from shared memory,
    plans which rank computes which rows,           compute their micro-batches,
    puts the arrays in the object store        ->   reduce gradients in ZeRO
    GAE, whitening, metrics                    <-   sums and scores

Every call waits for all ranks; learner/rank_actors.py says what `cluster.deadline_s` bounds of it.
"""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agile_ray.config import PPO, Cluster, Imitation, Learner, Rollout
from agile_ray.record.roll_call import RollCall
from agile_ray.seeds import derive
from agile_ray.types import Demonstration, Int32, Segment, TokenScores, TrainingRow, Update
from agile_ray.weights import WeightsRef
from learner import kl_controller
from learner.messages import Attention, Dtype, ImitationStep, PPOStep, RankScores, RankSettings, Sums, add, merge_scores
from learner.plan import MiniBatch, padding, plan
from learner.ragged import Ragged, lay_out, split, split_scores
from learner.rank_actors import RankActors, Yielded
from learner.steps import imitation_metrics, imitation_rate, ppo_metrics, ppo_rate, take_steps
from learner.targets import make_demonstration_targets, make_targets
from learner.weights.publisher import Publisher

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

UNIT = "micro-batch"
"""What a rank reports progress for."""


class LearnerGroup:
    """Starts the ranks and calls them. Implements `Learners`, and what checkpoints and exports need."""

    def __init__(
        self,
        folder: Path,
        *,
        learner: Learner,
        ppo: PPO,
        imitation: Imitation,
        rollout: Rollout,
        cluster: Cluster,
        function_ids: Sequence[int],
        probes: Sequence[Int32],
        seed: int,
        roll_call: RollCall | None = None,
        places: "Sequence[PlacementGroupSchedulingStrategy] | None" = None,
        take_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Start one actor per rank and load the model's folder.

        Args:
            folder: a Hugging Face folder.
            rollout: how the engines sample, and how they receive weights.
            function_ids: ids of the function tokens, where the entropy bonus applies.
            probes: token ids, int32 [T] each, by which the engines check every published version.
            seed: root of the ranks' seeds.
            roll_call: of the folder that the ranks save into; None if they save nothing.
            places: where each rank runs; None: wherever Ray finds room.
            take_turn: called before the ranks use what they hold, who then have the GPUs.

        Raises:
            ConfigError: the folder holds no causal language model, or a rank's node does not share the run's folder.
            DeadlineError: the ranks did not meet in time.
            LearnerError: a rank died.
        """
        self._take_turn = take_turn
        self._learner = learner
        self._ppo = ppo
        self._kl = kl_controller.configured(ppo)
        self._imitation = imitation
        self._settings = RankSettings(
            folder=folder,
            learner=learner,
            function_ids=tuple(function_ids),
            temperature=rollout.temperature,
            publish_dtype=rollout.dtype,
            matmul_dtype=ppo.dtype,
            attention=_attention(cluster.device, {learner.dtype, imitation.dtype, ppo.dtype}),
            deadline_s=cluster.deadline_s,
        )
        self._cluster = cluster
        self._seed = seed
        self._places = places
        self._transport: Literal["ray_shm", "nccl"] = rollout.transport
        self._probes = tuple(probes)
        self._restarts = 0
        self._ranks, self._publisher = self._start(roll_call)

    def _start(self, roll_call: RollCall | None) -> tuple[RankActors, Publisher]:
        ranks = RankActors(
            ranks=self._learner.ranks,
            device=self._cluster.device,
            gpu_share=self._cluster.gpu_share,
            seed=self._seed,
            deadline_s=self._settings.deadline_s,
            places=self._places,
        )
        plans = ranks.start(self._settings, roll_call)
        publisher = Publisher(
            ranks,
            plans=plans,
            transport=self._transport,
            probes=self._probes,
            deadline_s=self._settings.deadline_s,
        )
        return ranks, publisher

    def imitate(self, demonstrations: Sequence[Demonstration], *, step: int, steps: int) -> Update:
        """Take one SFT step on the action tokens of these demonstrations.

        Args:
            step: number of the optimizer step, from 0; sets the learning rate.
            steps: of the whole imitation.

        Raises:
            LearnerError: a rank died, or the loss or gradient is not finite (before the optimizer step).
            DeadlineError: a rank was late.
        """
        self._take_turn()
        begin = time.perf_counter()
        ragged = lay_out([demonstration.segment for demonstration in demonstrations])
        minibatches = self._plan(ragged, seed=step, minibatches=1)
        shared = self._ranks.share(ragged, make_demonstration_targets(demonstrations))
        values = ImitationStep(
            actions=max(1, len(ragged.positions)),
            learning_rate=imitation_rate(self._imitation, step=step, steps=steps),
            critic_learning_rate=self._ppo.critic_learning_rate,
            imitation=self._imitation,
        )
        calls = [
            actor.imitate.remote(*shared, micro_batches, values)
            for actor, micro_batches in zip(self._ranks.handles, minibatches[0].by_rank, strict=True)
        ]
        sums = _over_ranks(self._ranks.follow("imitate", calls, unit=UNIT))
        return _update(minibatches, begin, imitation_metrics(sums) | {"learning_rate": values.learning_rate})

    def score(
        self, segments: Sequence[Segment], prefixes: Sequence[Segment]
    ) -> tuple[list[TokenScores], list[TokenScores]]:
        """Score every action token with the present weights, the reference policy and the heads.

        Args:
            segments: what was played.
            prefixes: counterfactual prefixes, scored in the same passes as `segments`.

        Returns:
            one entry per segment, and one per prefix.

        Raises:
            LearnerError: `set_reference` was never called; or a rank died.
            DeadlineError: a rank was late.
        """
        self._take_turn()
        together = [*segments, *prefixes]
        if not together:
            return [], []
        ragged = lay_out(together)
        (minibatch,) = self._plan(ragged, seed=0, minibatches=1)
        shared = self._ranks.share(ragged)
        calls = [
            actor.score.remote(*shared, micro_batches)
            for actor, micro_batches in zip(self._ranks.handles, minibatch.by_rank, strict=True)
        ]
        parts: list[Yielded[RankScores]] = self._ranks.follow("score", calls, unit=UNIT)
        scores = split_scores(merge_scores([part.result for part in parts]), ragged.action_starts)
        return scores[: len(segments)], scores[len(segments) :]

    def learn(self, rows: Sequence[TrainingRow], *, seed: int, progress: float) -> Update:
        """Run one PPO update: `ppo.epochs` passes of `ppo.minibatches` steps, fewer if `ppo.early_stop_kl` is exceeded.

        Args:
            seed: determines which rows share a minibatch.
            progress: share of the run's iterations that are finished, from 0 to 1; sets the learning rate.

        Raises:
            LearnerError: a rank died, or a loss or gradient is not finite (before the optimizer step).
            DeadlineError: a rank was late.
        """
        self._take_turn()
        begin = time.perf_counter()
        segments = [row.segment for row in rows]
        order = sorted(range(len(rows)), key=lambda k: (segments[k].stream, segments[k].position, segments[k].index))
        ragged = lay_out([segments[k] for k in order])
        targets, metrics = make_targets([rows[k] for k in order], self._ppo)
        shared = self._ranks.share(ragged, targets)
        minibatches = [
            minibatch
            for epoch in range(self._ppo.epochs)
            for minibatch in self._plan(ragged, seed=derive(seed, "epoch", epoch), minibatches=self._ppo.minibatches)
        ]
        rate, kl, early_stop_kl = ppo_rate(self._ppo, progress), self._kl, self._ppo.early_stop_kl

        def take_step(minibatch: MiniBatch) -> Sums:
            actions = max(1, int(ragged.actions[minibatch.rows].sum()))
            step = PPOStep(actions=actions, learning_rate=rate, kl_coefficient=kl.coefficient, ppo=self._ppo)
            calls = [
                actor.learn.remote(*shared, micro_batches, step)
                for actor, micro_batches in zip(self._ranks.handles, minibatch.by_rank, strict=True)
            ]
            return _over_ranks(self._ranks.follow("learn", calls, unit=UNIT))

        taken = take_steps(minibatches, take_step, early_stop_kl=early_stop_kl)
        metrics |= ppo_metrics(taken, planned=len(minibatches), early_stop_kl=early_stop_kl)
        metrics |= {"learning_rate": rate, "kl_coefficient": kl.coefficient}
        self._kl = kl.after(metrics["kl_nats"])
        advantages = split(targets.advantages, ragged.action_starts, order)
        return replace(_update(minibatches[: len(taken)], begin, metrics), advantages=advantages)

    def set_reference(self, folder: Path) -> None:
        """Load the frozen policy, a Hugging Face folder, from which PPO measures its KL.

        With `learner.lora_rank` it is a folder that `export` wrote, of which only the adapter is loaded.

        Raises:
            ConfigError: the folder holds no causal language model.
            LearnerError: a rank died; or the folder holds no adapter of this model.
            DeadlineError: a rank was late.
        """
        self._take_turn()
        self._ranks.wait("set_reference", [actor.set_reference.remote(folder) for actor in self._ranks.handles])

    def publish(self, version: int) -> WeightsRef:
        """Make the present weights available as a version.

        Raises:
            LearnerError: a rank died; or the transport is nccl and `connect` was never called.
            DeadlineError: a rank was late.
        """
        self._take_turn()
        return self._publisher.publish(version)

    def connect(self, handles: "list[ActorHandle]", *, workers: int) -> None:
        """Open the nccl transport to the rollout actors, which have this many GPUs together. Untested: it needs GPUs.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._publisher.connect(handles, workers=workers)

    def reopen(self, *, ppo: PPO, imitation: Imitation) -> None:
        """Take the settings of another run; weights and optimizer are kept until `load`."""
        self._ppo, self._imitation = ppo, imitation
        self._kl = kl_controller.configured(ppo)

    def export(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder, with its tokenizer, into an existing folder.

        With `learner.lora_rank`, its weights are merged, and the adapter lies beside them in `adapter/`.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._take_turn()
        self._ranks.wait("export", [actor.export.remote(folder) for actor in self._ranks.handles])

    def save(self, folder: Path) -> None:
        """Write trained weights, heads and optimizer, sharded, and the KL coefficient into an existing folder.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._take_turn()
        self._ranks.wait("save", [actor.save.remote(folder) for actor in self._ranks.handles])
        kl_controller.save(self._kl, self._ppo, folder)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote with the same number of ranks.

        Raises:
            LearnerError: the folder holds no state of this model and number of ranks; or a rank died.
            DeadlineError: a rank was late.
        """
        self._take_turn()
        self._ranks.wait("load", [actor.load.remote(folder) for actor in self._ranks.handles])
        self._kl = kl_controller.load(self._ppo, folder)

    def offload(self) -> None:
        """Leave the GPUs: weights, optimizer and reference go to main memory.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._ranks.wait("offload", [actor.offload.remote() for actor in self._ranks.handles])

    def reload(self) -> None:
        """Come back to the GPUs.

        Raises:
            LearnerError, DeadlineError: as `offload`.
        """
        self._ranks.wait("reload", [actor.reload.remote() for actor in self._ranks.handles])

    def restart(self, roll_call: RollCall | None = None) -> None:
        """End all ranks, the lost ones too, and start fresh ones in their places.

        These have the weights of the model's folder, and need all that a new group needs: `load`, `set_reference`,
        `connect`.

        Args:
            roll_call: of the folder that the ranks save into; None if they save nothing.

        Raises:
            ConfigError: a rank's node does not share the run's folder.
            DeadlineError: the ranks did not meet in time.
            LearnerError: a rank died.
        """
        self._ranks.shutdown()
        self._restarts += 1
        self._ranks, self._publisher = self._start(roll_call)

    def counts(self) -> Mapping[str, int]:
        """What happened to the ranks since the last call: `learner_restarts`."""
        restarts, self._restarts = self._restarts, 0
        return {"learner_restarts": restarts}

    def shutdown(self) -> None:
        """End the ranks' processes."""
        self._ranks.shutdown()

    def _plan(self, ragged: Ragged, *, seed: int, minibatches: int) -> tuple[MiniBatch, ...]:
        return plan(
            ragged.lengths,
            seed=seed,
            minibatches=minibatches,
            ranks=self._learner.ranks,
            micro_batch_tokens=self._learner.micro_batch_tokens,
        )


def _attention(device: Literal["cpu", "gpu"], dtypes: Set[Dtype]) -> Attention:
    # On CPU the backward pass of PyTorch's fused attention is slow in bfloat16. The plain implementation is faster
    # there but stores all attention weights, so float32 uses the fused one.
    return "eager" if device == "cpu" and "bfloat16" in dtypes else "sdpa"


def _over_ranks(parts: Sequence[Yielded[Sums]]) -> Sums:
    """Add up what all ranks measured in one optimizer step."""
    return add((part.result for part in parts), gradient_norm=parts[0].result.gradient_norm)


def _update(minibatches: Sequence[MiniBatch], begin: float, metrics: dict[str, float]) -> Update:
    return Update(
        tokens=sum(minibatch.tokens for minibatch in minibatches),
        padding=padding(minibatches),
        seconds=time.perf_counter() - begin,
        metrics=metrics,
    )
