"""Ratios of learning: numbers 2 and 3, on sessions that the teacher plays.

2   a PPO update of one rank, from the driver's call to its return, over bare PyTorch on the same micro-batches
3   tokens of padding over all tokens that a pass processes; the baseline fills passes with rows in the order given
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

import envs
from agile_ray.config import RunConfig
from agile_ray.scripted import demonstrations
from agile_ray.types import Demonstration, Int64, Segment, TokenScores, TrainingRow
from benchmarks.overhead import timed
from benchmarks.ratios import Measured, Ratio
from launch.cluster.ray_cluster import cluster
from launch.run import shipped_configs
from learner.plan import padding, plan
from learner.ragged import lay_out
from rollout.rules import build_rules

if TYPE_CHECKING:
    from learner.group import LearnerGroup

SESSIONS = 384
"""Sessions of one update, as many as an iteration of the quick start collects."""
SEED = 0


def measure(numbers: Sequence[int], config: str, overrides: Sequence[str], *, repeats: int) -> list[Ratio]:
    """Measure some of the ratios 2 and 3; number 2 on a Ray cluster of its own.

    Args:
        config: name of a shipped config, or path of a YAML file.
        overrides: keys to set.
    """
    given = [*overrides, "run.name=benchmark", "learner.ranks=1", f"imitation.sessions={SESSIONS}", "ppo.epochs=1"]
    read = shipped_configs.read(config, given)
    segments = [demonstration.segment for batch in played(read) for demonstration in batch]
    ratios: list[Ratio] = []
    if 2 in numbers:
        ratios.append(update_speed(read, segments, repeats=repeats))
    if 3 in numbers:
        lengths = np.array([len(segment.token_ids) for segment in segments], dtype=np.int64)
        ratios.append(padding_waste(lengths, read, repeats=repeats))
    return ratios


def update_speed(config: RunConfig, segments: Sequence[Segment], *, repeats: int) -> Ratio:
    """Number 2."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # idle threads of the baseline would take the rank's cores
    import torch

    del os.environ["OMP_WAIT_POLICY"]  # read when torch is imported; engines of other numbers have their own
    from benchmarks.bare_torch import BareLearner, load, synchronize
    from learner.micro_batch import make_micro_batch
    from learner.model import torch_dtype

    device = torch.device("cuda" if config.cluster.device == "gpu" else "cpu")
    ragged, dtype = lay_out(segments), torch_dtype(config.learner.dtype)
    steps = [
        [make_micro_batch(ragged, rows, device) for rows in minibatch.by_rank[0]]
        for minibatch in plan(
            ragged.lengths,
            seed=SEED,
            minibatches=config.ppo.minibatches,
            ranks=1,
            micro_batch_tokens=config.learner.micro_batch_tokens,
        )
    ]
    model = load(config.model.path, dtype=dtype, device=device)
    bare = BareLearner(model, matmul_dtype=torch_dtype(config.ppo.dtype), learning_rate=config.ppo.learning_rate)
    rows, found = [row(segment) for segment in segments], list[Measured]()

    def bare_update() -> None:
        for step in steps:
            bare.step(step)
        synchronize(device)

    bare_update()
    with learners(config) as group:
        group.learn(rows, seed=SEED, progress=0.0)  # warm up
        for repeat in range(repeats):
            bare_s, _ = timed(bare_update)
            learned_s, _ = timed(lambda repeat=repeat: group.learn(rows, seed=repeat, progress=0.0))
            found.append(Measured(ours=learned_s, baseline=bare_s, ratio=learned_s / bare_s))
    tokens, name = int(ragged.lengths.sum()), "/".join(config.model.path.parts[-2:])
    return Ratio(
        number=2,
        name="a learner's update / bare PyTorch on the same tokens",
        bound="at most",
        aim=1.10,
        unit="s",
        repeats=tuple(found),
        remark=f"{tokens} tokens in {len(steps)} steps, {name}, {config.learner.dtype}, one rank",
    )


def padding_waste(lengths: Int64, config: RunConfig, *, repeats: int) -> Ratio:
    """Number 3."""
    limit = config.learner.micro_batch_tokens
    naive = waste_in_order(lengths, limit=limit)
    wastes = [
        padding(plan(lengths, seed=seed, minibatches=config.ppo.minibatches, ranks=ranks, micro_batch_tokens=limit))
        for seed in range(repeats)
        for ranks in (1, 2)
    ]
    return Ratio(
        number=3,
        name="padding / processed tokens",
        bound="at most",
        aim=0.03,
        unit="of processed tokens",
        repeats=tuple(Measured(ours=waste, baseline=naive, ratio=waste) for waste in wastes),
        remark=f"{len(lengths)} rows of {lengths.min()} to {lengths.max()} tokens, on one rank and on two; the ratio "
        "is the waste itself, the baseline that of rows in order",
    )


def waste_in_order(lengths: Int64, *, limit: int) -> float:
    """Share of padding if passes of at most `limit` tokens take the rows in the order given."""
    processed, widest, rows = 0, 0, 0
    for length in lengths.tolist():
        if max(widest, length) * (rows + 1) > limit:
            processed, widest, rows = processed + widest * rows, 0, 0
        widest, rows = max(widest, length), rows + 1
    return 1.0 - int(lengths.sum()) / (processed + widest * rows)


def played(config: RunConfig) -> list[list[Demonstration]]:
    """What the teacher's sessions teach, in batches."""
    environment = envs.build(config.env, seed=config.seed)
    rules = build_rules(
        environment,
        env=config.env,
        agent=config.agent,
        memory=config.memory,
        model=config.model.path,
        seed=config.seed,
    )
    lessons = demonstrations.lessons(config.imitation, environment, rules, seed=config.seed, progress=lambda _: None)
    return [list(batch) for batch in lessons.batches]


def row(segment: Segment) -> TrainingRow:
    """A segment as PPO learns it, with scores of zero."""
    zeros = np.zeros(segment.actions, np.float32)
    scores = TokenScores(logprobs=zeros, reference_logprobs=zeros, own_values=zeros, write_probabilities=zeros)
    return TrainingRow(segment=segment, scores=scores, credit=0.0, credit_baseline=0.0, decided_after=0, wrote=False)


@contextmanager
def learners(config: RunConfig) -> "Iterator[LearnerGroup]":
    """The config's ranks, on a Ray cluster of their own."""
    from learner.group import LearnerGroup
    from rollout.tokenizer import HFTokenizer

    tokenizer = HFTokenizer(config.model.path)
    with cluster(config.cluster, cpus=4):
        yield LearnerGroup(
            config.model.path.absolute(),
            learner=config.learner,
            ppo=config.ppo,
            imitation=config.imitation,
            rollout=config.rollout,
            cluster=config.cluster,
            function_ids=list(tokenizer.functions.values()),
            probes=[],
            seed=config.seed,
        )
