"""The learners as the loop sees them: one policy and its critics, sharded over ranks that the caller never sees.

    driver (this file)                              ranks
    lays segments out flat, plans who computes      read the flat arrays from shared memory,
    what, puts the arrays in the object store  ->   run their micro-batches, meet in ZeRO
    GAE, whitening, totals                     <-   sums and scores

Every call waits for all ranks, at most `cluster.deadline_s` seconds.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import ray

from agile_ray.config import PPO, Imitation, Learner
from agile_ray.errors import LearnerError
from agile_ray.seeds import derive
from agile_ray.types import Demonstration, Int32, Segment, TokenScores, TrainingRow, Update
from agile_ray.weights import Bucket, Probe, WeightsRef
from learner import kl_controller
from learner.actor import LearnerActor
from learner.plan import MiniBatch, padding, plan
from learner.ragged import Ragged, lay_out, split_scores
from learner.reports import Sums, add, placed
from learner.schedule import imitation_rate, ppo_rate
from learner.steps import imitation_metrics, ppo_metrics, take
from learner.targets import make_demonstration_targets, make_targets
from learner.waiting import wait

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from learner.engine import Dtype
    from learner.model import Attention

Result = TypeVar("Result")


class LearnerGroup:
    """Starts the ranks and speaks to them. Implements `Learners`, and what checkpoints keep of them."""

    def __init__(
        self,
        folder: Path,
        *,
        learner: Learner,
        deadline_s: float,
        ppo: PPO,
        imitation: Imitation,
        function_ids: Sequence[int],
        device: Literal["cpu", "gpu"],
        temperature: float,
        transport: Literal["ray_shm", "nccl"],
        publish_dtype: "Dtype",
        probes: Sequence[Int32],
        seed: int,
    ) -> None:
        """Start one actor per rank and load the model's folder, a Hugging Face one.

        Args:
            deadline_s: longest wait for one call of the ranks.
            function_ids: ids of the function tokens, where the entropy bonus applies.
            temperature: of sampling; PPO compares logprobs at this temperature.
            publish_dtype: what the rollout engines serve.
            probes: token ids that every published version is tried on.
            seed: root of the ranks' own.

        Raises:
            ConfigError: the folder holds no causal language model.
            DeadlineError: the ranks did not meet in time.
            LearnerError: a rank died.
        """
        self._learner = learner
        self._deadline_s = deadline_s
        self._ppo = ppo
        self._kl = kl_controller.configured(ppo)
        self._imitation = imitation
        self._transport = transport
        self._probes = tuple(probes)
        self._connected = False
        kind = ray.remote(num_cpus=1, num_gpus=1 if device == "gpu" else 0)(LearnerActor)
        start = partial(kind.remote, ranks=learner.ranks, device=device, deadline_s=deadline_s)
        self._actors = [
            cast("ActorHandle", start(rank=rank, seed=derive(seed, "learner", rank))) for rank in range(learner.ranks)
        ]
        try:
            address = self._wait("bind", [self._actors[0].bind.remote()])[0]
            settings = {
                "learner": learner,
                "ppo": ppo,
                "function_ids": tuple(function_ids),
                "temperature": temperature,
                "publish_dtype": publish_dtype,
                "attention": _attention(device, learner, imitation),
            }
            starts = [actor.start.remote(address, folder, **settings) for actor in self._actors]
            self._bucket_plans = self._wait("start", starts)[0]
        except BaseException:
            self.shutdown()
            raise

    def imitate(self, demonstrations: Sequence[Demonstration], *, step: int) -> Update:
        """Take one SFT step on the action tokens of these demonstrations; `step`, from 0, sets the learning rate.

        Raises:
            LearnerError: a rank died, or the loss or gradient is not finite (before the optimizer step).
            DeadlineError: a rank was late.
        """
        begin = time.perf_counter()
        ragged = lay_out([demonstration.segment for demonstration in demonstrations])
        batches = self._plan(ragged, seed=step, minibatches=1)
        shared = ray.put(ragged), ray.put(make_demonstration_targets(demonstrations))
        actions = max(1, len(ragged.positions))
        rate = imitation_rate(self._imitation, step)
        settings = {
            "value_coefficient": self._imitation.value_coefficient,
            "actions": actions,
            "learning_rate": rate,
            "dtype": self._imitation.dtype,
        }
        sums = self._wait(
            "imitate",
            [
                actor.imitate.remote(*shared, hand, **settings)
                for actor, hand in zip(self._actors, batches[0].ranks, strict=True)
            ],
        )
        total = add(sums, gradient_norm=sums[0].gradient_norm)
        return _update(batches, begin, imitation_metrics(total) | {"learning_rate": rate})

    def score(self, prefixes: Sequence[Segment]) -> list[TokenScores]:
        """What the present weights, the reference and the heads think of every action token.

        Raises:
            LearnerError: `set_reference` was never called; or a rank died.
            DeadlineError: a rank was late.
        """
        if not prefixes:
            return []
        ragged = lay_out(prefixes)
        hands = self._plan(ragged, seed=0, minibatches=1)[0].ranks
        shared = ray.put(ragged)
        parts = self._wait(
            "score", [actor.score.remote(shared, hand) for actor, hand in zip(self._actors, hands, strict=True)]
        )
        return split_scores(placed(parts), ragged.action_starts)

    def learn(self, rows: Sequence[TrainingRow], *, seed: int, done: float) -> Update:
        """Run one PPO update: `ppo.epochs` passes of `ppo.minibatches` optimizer steps, fewer past `ppo.early_stop_kl`.

        Args:
            done: share of the run's iterations that lie behind, from 0 to 1; sets the learning rate.

        Raises:
            LearnerError: a rank died, or a loss or gradient is not finite (before the optimizer step).
            DeadlineError: a rank was late.
        """
        begin = time.perf_counter()
        rows = sorted(rows, key=lambda row: (row.segment.stream, row.segment.position, row.segment.index))
        ragged = lay_out([row.segment for row in rows])
        targets, metrics = make_targets(rows, self._ppo)
        shared = ray.put(ragged), ray.put(targets)
        batches = [
            batch
            for epoch in range(self._ppo.epochs)
            for batch in self._plan(ragged, seed=derive(seed, "epoch", epoch), minibatches=self._ppo.minibatches)
        ]
        rate, kl = ppo_rate(self._ppo, done), self._kl
        taken = take(
            batches,
            lambda batch: self._ppo_step(batch, ragged, shared, rate=rate, kl_coefficient=kl.coefficient),
            stop_kl=self._ppo.early_stop_kl,
        )
        metrics |= ppo_metrics(taken, planned=len(batches), stop_kl=self._ppo.early_stop_kl)
        self._kl = kl.after(metrics["kl_nats"])
        metrics |= {"learning_rate": rate, "kl_coefficient": kl.coefficient}
        return _update(batches[: len(taken)], begin, metrics)

    def set_reference(self, folder: Path) -> None:
        """Load the frozen policy, a Hugging Face folder, that PPO is kept near to.

        Raises:
            ConfigError: the folder holds no causal language model.
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._wait("set_reference", [actor.set_reference.remote(folder) for actor in self._actors])

    def publish(self, version: int) -> WeightsRef:
        """Hand out the present weights as a version.

        The driver owns the bytes, so they outlive the ranks: a new rollout actor can always fetch them.

        Raises:
            LearnerError: a rank died; or the transport is nccl and `connect` was never called.
            DeadlineError: a rank was late.
        """
        if self._transport == "nccl":
            return self._broadcast(version)
        first, *others = self._actors
        answer = first.buckets.options(num_returns=1 + len(self._bucket_plans)).remote()
        checksums, *_ = self._wait("publish", [answer[0], *(actor.help_buckets.remote() for actor in others)])
        buckets = tuple(
            Bucket(index=index, size_bytes=plan.size_bytes, checksum=checksum, tensors=plan.tensors)
            for index, (plan, checksum) in enumerate(zip(self._bucket_plans, checksums, strict=True))
        )
        return WeightsRef(version=version, buckets=buckets, blobs=tuple(answer[1:]), probes=self._probe())

    def connect(self, handles: "list[ActorHandle]", *, workers: int) -> None:
        """Open the nccl transport to the rollout actors; `workers` counts their GPUs. Not run here.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._wait("connect", [actor.connect.remote(handles, workers=workers) for actor in self._actors])
        self._connected = True

    def reopen(self, *, ppo: PPO, imitation: Imitation) -> None:
        """Serve another run's settings; weights and optimizer stay as they are until `load`.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._ppo, self._imitation = ppo, imitation
        self._kl = kl_controller.configured(ppo)
        self._wait("reopen", [actor.reopen.remote(ppo) for actor in self._actors])

    def export(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder, with its tokenizer, into an existing folder.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._wait("export", [actor.export.remote(folder) for actor in self._actors])

    def save(self, folder: Path) -> None:
        """Write weights, heads and optimizer, sharded, and the KL coefficient into an existing folder.

        Raises:
            LearnerError: a rank died.
            DeadlineError: a rank was late.
        """
        self._wait("save", [actor.save.remote(folder) for actor in self._actors])
        kl_controller.save(self._kl, self._ppo, folder)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote with as many ranks.

        Raises:
            LearnerError: the folder holds no state of this model and as many ranks; or a rank died.
            DeadlineError: a rank was late.
        """
        self._wait("load", [actor.load.remote(folder) for actor in self._actors])
        self._kl = kl_controller.load(self._ppo, folder)

    def shutdown(self) -> None:
        """End the ranks' processes."""
        for actor in self._actors:
            ray.kill(actor)

    def _plan(self, ragged: Ragged, *, seed: int, minibatches: int) -> tuple[MiniBatch, ...]:
        return plan(
            ragged.lengths,
            seed=seed,
            minibatches=minibatches,
            ranks=self._learner.ranks,
            micro_batch_tokens=self._learner.micro_batch_tokens,
        )

    def _ppo_step(
        self,
        batch: MiniBatch,
        ragged: Ragged,
        shared: "tuple[ObjectRef, ObjectRef]",
        *,
        rate: float,
        kl_coefficient: float,
    ) -> Sums:
        actions = max(1, int(ragged.actions[batch.rows].sum()))
        settings = {"actions": actions, "learning_rate": rate, "kl_coefficient": kl_coefficient}
        sums = self._wait(
            "learn",
            [
                actor.learn.remote(*shared, hand, **settings)
                for actor, hand in zip(self._actors, batch.ranks, strict=True)
            ],
        )
        return add(sums, gradient_norm=sums[0].gradient_norm)

    def _broadcast(self, version: int) -> WeightsRef:
        if not self._connected:
            raise LearnerError("learner.publish: the nccl transport must be connected first; call connect")
        self._wait("publish", [actor.send.remote() for actor in self._actors])
        return WeightsRef(version=version, buckets=(), blobs=(), probes=self._probe())

    def _probe(self) -> tuple[Probe, ...]:
        return self._wait("probe", [actor.probe.remote(self._probes) for actor in self._actors])[0]

    def _wait(self, call: str, answers: "Sequence[ObjectRef[Result]]") -> list[Result]:
        return wait(call, answers, deadline_s=self._deadline_s)


def _attention(device: Literal["cpu", "gpu"], learner: Learner, imitation: Imitation) -> "Attention":
    # On CPU the backward pass of PyTorch's fused attention is five times slower in bfloat16 than in float32. The plain
    # one is not, but keeps every score, so float32 stays with the fused one.
    return "eager" if device == "cpu" and "bfloat16" in (learner.dtype, imitation.dtype) else "sdpa"


def _update(batches: Sequence[MiniBatch], begin: float, metrics: dict[str, float]) -> Update:
    return Update(
        tokens=sum(batch.tokens for batch in batches),
        padding=padding(batches),
        seconds=time.perf_counter() - begin,
        metrics=metrics,
    )
