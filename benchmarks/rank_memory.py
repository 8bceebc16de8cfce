"""Measures the memory of one learner rank beside what `agile-ray plan` says of it.

One rank in this process, without Ray and with the allocator of a run's actors, scores random rows that fill its
micro-batches, by the policy and by the reference, and takes optimizer steps on them. The growth of the process is
measured, from where its libraries are loaded and no model is.
"""

import argparse
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from agile_ray.config import Cluster, RunConfig
from launch.border import border
from launch.cluster import allocator
from launch.plan.memory import rank_memory
from launch.plan.network import read_network
from launch.run import shipped_configs

EXAMPLE = """example:
  python benchmarks/rank_memory.py models/smollm2 learner.micro_batch_tokens=2048 agent.session_tokens=512

prints both and their ratio. The overrides are those of the config quickstart; there is one rank.
"""
LOOK_S = 0.02
"""Time between two looks at the memory, seconds."""
MIB = 2**20
SFT_LOSS = 1e-3
"""Weight of each action token's loss, so that the numbers stay small."""


def held(process: psutil.Process) -> int:
    """Bytes of a process that the system can't take back at once: without what its allocator offers it."""
    offered = sum(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("LazyFree:")
    )
    return process.memory_info().rss - offered


@contextmanager
def watched(process: psutil.Process, found: list[int]) -> Iterator[None]:
    """Append the process's largest memory during the block, bytes."""
    ended, largest = threading.Event(), [0]

    def look() -> None:
        while not ended.wait(LOOK_S):
            largest[0] = max(largest[0], held(process))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1.0)
        found.append(max(largest[0], held(process)))


def measure(config: RunConfig, *, action_share: float, steps: int) -> int:
    """Bytes by which a rank's process grows at most.

    Args:
        config: of a run with one rank.
        action_share: action tokens over all tokens of the rows.
        steps: optimizer steps, of two micro-batches each.
    """
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}
    import torch
    from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]  as documented

    from learner.compiler.folder import choose_folder
    from learner.compiler.lock import compile_alone
    from learner.engine import DeepSpeedEngine, RankInfo
    from learner.losses import token_logprobs
    from learner.messages import RankSettings
    from learner.micro_batch import MicroBatch
    from learner.model import torch_dtype

    compile_alone(choose_folder())
    process = psutil.Process()
    idle, peaks = held(process), list[int]()
    eager = "bfloat16" in (config.learner.dtype, config.imitation.dtype, config.ppo.dtype)
    settings = RankSettings(
        folder=config.model.path,
        learner=config.learner,
        function_ids=(3, 4, 5),
        temperature=1.0,
        publish_dtype=config.rollout.dtype,
        matmul_dtype=config.ppo.dtype,
        attention="eager" if eager else "sdpa",
        deadline_s=config.cluster.deadline_s,
    )
    width = config.agent.session_tokens
    rows, actions = config.learner.micro_batch_tokens // width, int(width * action_share)
    places = np.concatenate([np.arange(width - actions - 1, width - 1) + row * width for row in range(rows)])
    with watched(process, peaks):
        engine = DeepSpeedEngine(settings, RankInfo(rank=0, ranks=1, store=HashStore(), device="cpu", seed=0))
        if config.learner.lora_rank is None:
            engine.set_reference(config.model.path)
        vocabulary = engine.language_model.config.get_text_config().vocab_size
        dtype = torch_dtype(config.ppo.dtype)

        def draw() -> MicroBatch:
            ids, positions = torch.randint(10, vocabulary, (rows, width)), torch.from_numpy(places)
            return MicroBatch(
                token_ids=ids,
                logit_positions=positions,
                actions=ids.reshape(-1)[positions + 1],
                indices=np.arange(len(places)),
            )

        for _ in range(steps):
            with torch.no_grad():
                batch = draw()
                token_logprobs(engine.forward(batch, dtype).logits, batch.actions, temperature=1.0)
                if config.learner.lora_rank is None:
                    token_logprobs(engine.reference_logits(batch, dtype), batch.actions, temperature=1.0)
            for _ in range(2):
                batch = draw()
                found = engine.forward(batch, dtype)
                heads = found.own_values.sum() + found.auxiliary_values.sum() + found.write_logits.sum()
                logprobs = token_logprobs(found.logits, batch.actions, temperature=1.0)
                engine.backward(SFT_LOSS * (heads - logprobs.sum()))
                del found, heads, logprobs
            engine.step([0.0], learning_rate=1e-6, call="measure")
    return peaks[0] - idle


def main() -> None:
    """Print what is planned and what is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the config quickstart")
    parser.add_argument("--action-share", type=float, default=0.5, help="of all tokens; default: %(default)s")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps; default: %(default)s")
    given = parser.parse_args()
    allocator.begin_anew(Cluster())
    with border():
        words = ["imitation.dtype=float32", *given.overrides, f"model.path={given.model.absolute()}", "learner.ranks=1"]
        config = shipped_configs.read("quickstart", words)
        planned = rank_memory(config, read_network(config.model.path), action_share=given.action_share).total
        measured = measure(config, action_share=given.action_share, steps=given.steps)
        print(f"planned {planned / MIB:.0f} MiB, measured {measured / MIB:.0f} MiB, ratio {planned / measured:.2f}")


if __name__ == "__main__":
    main()
