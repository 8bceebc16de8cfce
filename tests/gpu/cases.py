"""Measures one case of the GPU check in a process of its own, so that memory and DeepSpeed's state are its own.

`check.py` starts it; the last line of its output is a JSON object. Without a package that it needs, it ends with
MISSING.
"""

import asyncio
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tests.gpu.sizes import CASES, ENGINE, SIZES, Case, Size

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")

MISSING = 3
"""Exit code if a package is not installed; the last line names it."""
RATE = 1e-4
DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass of bare PyTorch."""

    token_ids: "torch.Tensor"
    logit_positions: "torch.Tensor"
    actions: "torch.Tensor"


def make_model(folder: Path, size: Size) -> None:
    """Write a Llama with random bfloat16 weights, whose head is tied to its embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=2 * size.tokens,
        tie_word_embeddings=True,
        initializer_range=size.hidden**-0.5,  # logits far from uniform, as a trained model's are
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def bare(folder: Path, size: Size, device: "torch.device") -> Callable[[], float]:
    """One step of bare PyTorch, which returns the cross-entropy."""
    import torch

    from benchmarks.bare_torch import BareLearner, load

    learner = BareLearner(
        load(folder, dtype=torch.bfloat16, device=device), matmul_dtype=torch.bfloat16, learning_rate=RATE
    )
    rows = size.micro_batch_tokens // size.tokens
    batches: list[Batch] = []
    for start in range(0, size.rows, rows):
        ids_BT = torch.from_numpy(size.ids()[start : start + rows]).to(device)
        positions = torch.arange(ids_BT.numel(), device=device).view_as(ids_BT)[:, -size.actions :].flatten()
        batches.append(Batch(ids_BT, positions - 1, ids_BT.flatten()[positions]))
    return lambda: learner.step(batches)


def learner(folder: Path, size: Size, case: Case, device: str) -> Callable[[], float]:
    """One step of this project's learner, which returns the cross-entropy."""
    from learner.compiler.folder import choose_folder
    from learner.compiler.lock import compile_alone

    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    compile_alone(choose_folder())
    from torch.distributed import HashStore

    from agile_ray.config import Imitation, Learner
    from learner.engine import DeepSpeedEngine, RankInfo
    from learner.messages import ImitationStep, RankSettings
    from learner.plan import plan
    from learner.ragged import lay_out
    from learner.rank import LearnerRank
    from learner.targets import DemonstrationTargets
    from tests.fakes.tiny_policy import segment

    assert case.stage is not None
    settings = RankSettings(
        folder=folder,
        learner=Learner.model_validate(
            {
                "ranks": 1,
                "zero_stage": case.stage,
                "dtype": "bfloat16",
                "micro_batch_tokens": size.micro_batch_tokens,
                "gradient_checkpointing": case.again,
                "lora_rank": case.lora_rank,
            }
        ),
        function_ids=tuple(range(2, 12)),
        temperature=1.0,
        publish_dtype="bfloat16",
        matmul_dtype="float32",
        attention="sdpa",
        deadline_s=DEADLINE_S,
    )
    info = RankInfo(rank=0, ranks=1, store=HashStore(), device="gpu" if device == "cuda" else "cpu", seed=0)
    rank = LearnerRank(DeepSpeedEngine(settings, info), settings)
    acted = list(range(size.tokens - size.actions, size.tokens))
    ragged = lay_out([segment(row.tolist(), acted) for row in size.ids()])
    none_A = np.zeros(len(ragged.positions), np.float32)
    [minibatch] = plan(ragged.lengths, seed=0, minibatches=1, ranks=1, micro_batch_tokens=size.micro_batch_tokens)
    step = ImitationStep(
        actions=len(ragged.positions), learning_rate=RATE, critic_learning_rate=RATE, imitation=Imitation()
    )
    targets = DemonstrationTargets(returns=none_A, wrote=none_A)

    def take() -> float:
        sums = finished(rank.imitate(ragged, targets, minibatch.by_rank[0], step))
        return sums.policy / sums.actions

    return take


def finished(steps: Generator[None, None, Result]) -> Result:
    """The result of a rank's call, which yields after each micro-batch."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def timed(step: Callable[[], float], size: Size, device: "torch.device") -> dict[str, object]:
    """Take the steps; the first one is not timed."""
    import torch

    from benchmarks.bare_torch import synchronize

    losses, seconds = [step()], list[float]()
    for _ in range(size.steps):
        synchronize(device)
        begin = time.perf_counter()
        losses.append(step())
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
    assert all(map(math.isfinite, losses)), f"every loss must be finite, found {losses}"
    assert losses[-1] < losses[0], f"the loss of repeated steps on one batch must fall, found {losses}"
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 1024 * _resident_kib()
    return {"seconds": sorted(seconds)[len(seconds) // 2], "loss": losses[0], "peak_gib": peak / 2**30}


def _resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(name: str, folder: Path, device: str) -> dict[str, object]:
    """Measure one case."""
    import torch

    size, place = SIZES[device], torch.device(device)
    if name == ENGINE:
        from tests.gpu.engine import measure

        return asyncio.run(measure(folder, size, device))
    case = CASES[name]
    step = bare(folder, size, place) if case.stage is None else learner(folder, size, case, device)
    return timed(step, size, place)


def main(words: Sequence[str]) -> int:
    """Measure the case that the command line names; returns the exit code."""
    name, folder, device = words[0], Path(words[1]), words[2]
    try:
        found = run(name, folder, device)
    except ModuleNotFoundError as error:
        print(f"\n{error.name} is not installed")
        return MISSING
    print("\n" + json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
