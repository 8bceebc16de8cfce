"""One rank's side of publishing: packs its weights into buckets and scores the probes. It needs no Ray."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from agile_ray.types import Float32, Int32
from agile_ray.weights import Probe
from learner.losses import token_logprobs
from learner.micro_batch import make_probe_batch
from learner.weights.buckets import Bytes, pack, plan_buckets

if TYPE_CHECKING:
    from learner.engine import DeepSpeedEngine


class RankWeights:
    """The policy's parameters on one rank. Every method is collective: all ranks call it, in the same order."""

    def __init__(self, engine: "DeepSpeedEngine", dtype: torch.dtype) -> None:
        """Plan the buckets.

        Args:
            dtype: of the published weights.
        """
        self._engine = engine
        self.dtype = dtype
        # Tied embeddings are published under both names: an engine that got only one would keep the other's old values.
        self._weights = engine.weights(tied_twice=True)
        shapes = ((name, _shape(weight.parameter)) for name, weight in self._weights.items())
        self.plans = plan_buckets(shapes, dtype)  # the same for every version

    def buckets(self) -> Iterator[Bytes | None]:
        """Pack the present weights, one bucket at a time, so that they are never in memory twice.

        On rank 0 it yields the buckets. The others only help to gather, and yield None for each.
        """
        for plan in self.plans:
            weights = [self._weights[spec.name] for spec in plan.tensors]
            bucket: Bytes | None = None
            with self._engine.gathered({weight.parameter for weight in weights}):
                if self._engine.rank == 0:
                    bucket = pack(plan, (weight.value() for weight in weights), self.dtype)
            yield bucket

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every parameter complete, in the published dtype."""
        for name, weight in self._weights.items():
            with self._engine.gathered([weight.parameter]):
                yield name, weight.value().to(self.dtype)

    @torch.no_grad()
    def probe(self, probes: Sequence[Int32]) -> tuple[Probe, ...]:
        """Score these token ids with the present weights at temperature 1.

        Args:
            probes: int32 [T] each.
        """
        return tuple(Probe(ids=ids, logprobs=self._logprobs(ids)) for ids in probes)

    def _logprobs(self, ids: Int32) -> Float32:
        batch = make_probe_batch(ids, self._engine.device)
        logits_AV = self._engine.forward(batch).logits
        logprobs_A = token_logprobs(logits_AV, batch.actions, temperature=1.0)
        return np.concatenate([[np.float32(0)], logprobs_A.cpu().numpy()])


def _shape(parameter: Tensor) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # under ZeRO 3 `shape` is that of the shard
