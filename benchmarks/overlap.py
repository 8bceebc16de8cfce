"""Number 6: the wall time of runs whose play and learning overlap, over the best there is, and over taking turns.

The real loop, pool, fleet, players and recorder train on an engine, a tool and an expert that take log-normal times,
and on a learner that sleeps (benchmarks/local_fleet.py). The best is the pacing rule at zero overhead
(benchmarks/pacing.py) on the times that this very run waited for. A run that takes turns (`loop.max_age` 0) waits for
the same times.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agile_ray import loop
from agile_ray.credit.assign import CreditAssigner
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.types import (
    Demonstration,
    RunState,
    Segment,
    TokenScores,
    TrainingRow,
    Update,
    ValidationScore,
)
from agile_ray.weights import WeightsRef
from benchmarks.local_fleet import LocalPool, Waits, World, local_config
from benchmarks.pacing import simulate
from benchmarks.ratios import Measured, Ratio

ITERATIONS, LANES, SESSIONS, ACTORS = 6, 16, 4, 2
WAITS = Waits(turn_s=0.05, tool_s=0.08, ask_s=0.3)
LEARN_S = 2.0
"""Of one update, seconds: about what the slowest lane takes for its slice."""
MOST_REPEATS = 2
"""A repeat takes a minute of sleep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One run."""

    wall_s: float
    best_s: float  # by the pacing rule at zero overhead


def measure(numbers: Sequence[int], config: str, overrides: Sequence[str], *, repeats: int) -> list[Ratio]:
    """Measure number 6 in this process; `config` and `overrides` play no part."""
    del numbers, config, overrides
    found = [(train(max_age=1), train(max_age=0)) for _ in range(min(repeats, MOST_REPEATS))]
    shape = f"{ITERATIONS} iterations of {LANES} lanes, {SESSIONS} sessions each, {LEARN_S:g} s to learn"
    turns = max(one.wall_s / one.best_s for _, one in found)
    return [
        Ratio(
            number=6,
            name="overlap, wall time / the pacing rule at zero overhead",
            bound="at most",
            aim=1.10,
            unit="s",
            repeats=tuple(
                Measured(ours=one.wall_s, baseline=one.best_s, ratio=one.wall_s / one.best_s) for one, _ in found
            ),
            remark=f"{shape}; taking turns, at most {turns:.2f}",
        ),
        Ratio(
            number=6,
            name="overlap, wall time / taking turns",
            bound="at most",
            aim=0.7,
            unit="s",
            repeats=tuple(
                Measured(ours=one.wall_s, baseline=other.wall_s, ratio=one.wall_s / other.wall_s)
                for one, other in found
            ),
            remark=f"{shape}; loop.max_age 1 and 0",
        ),
    ]


def train(*, max_age: int, iterations: int = ITERATIONS, waits: Waits = WAITS, learn_s: float = LEARN_S) -> Trained:
    """Train, and simulate the same run at zero overhead."""
    world = World(waits, stream_sessions=iterations * SESSIONS)
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        config = local_config(
            Path(folder),
            lanes=LANES,
            sessions_per_lane=SESSIONS,
            iterations=iterations,
            max_age=max_age,
            actors=ACTORS,
        )
        recorder, pool = RunRecorder(RunFolder.of(config)), LocalPool(config, world)
        try:
            begin_s = time.perf_counter()
            loop.train(
                config,
                RunState(imitation_steps=0, iteration=0, version=0),
                rollouts=pool,
                learners=SleepingLearners(learn_s),
                credit=CreditAssigner(config.credit),
                checkpoints=NoCheckpoints(),
                recorder=recorder,
                stopping=lambda: False,
            )
            wall_s = time.perf_counter() - begin_s
        finally:
            pool.shutdown()
            recorder.close()
    waited = [
        [world.waited_s[f"train/{lane}", place] for place in range(iterations * SESSIONS)] for lane in range(LANES)
    ]
    play_s = np.array(waited).reshape(LANES, iterations, SESSIONS).sum(axis=2).T  # [slices, lanes]
    return Trained(wall_s=wall_s, best_s=simulate(play_s, [learn_s] * iterations, max_age=max_age).wall_s)


class SleepingLearners:
    """Learns nothing, and takes its time. Implements `agile_ray.protocols.Learners`."""

    def __init__(self, learn_s: float) -> None:
        self._learn_s = learn_s

    def imitate(self, demonstrations: Sequence[Demonstration], *, step: int, steps: int) -> Update:
        """No step."""
        del demonstrations, step, steps
        return Update(tokens=0, padding=0.0, seconds=0.0, metrics={})

    def score(
        self, segments: Sequence[Segment], prefixes: Sequence[Segment]
    ) -> tuple[list[TokenScores], list[TokenScores]]:
        """Zeros, at once."""
        return [_zeros(one) for one in segments], [_zeros(one) for one in prefixes]

    def learn(self, rows: Sequence[TrainingRow], *, seed: int, progress: float) -> Update:
        """Sleep."""
        del seed, progress
        time.sleep(self._learn_s)
        advantages = tuple(np.zeros(row.segment.actions, np.float32) for row in rows)
        tokens = sum(len(row.segment.token_ids) for row in rows)
        return Update(tokens=tokens, padding=0.0, seconds=self._learn_s, metrics={}, advantages=advantages)

    def publish(self, version: int) -> WeightsRef:
        """A version without weights."""
        return WeightsRef(version=version, buckets=(), blobs=(), probes=())


class NoCheckpoints:
    """Saves nothing. Implements `agile_ray.protocols.Checkpoints`."""

    def restore(self) -> RunState:
        """The start."""
        return RunState(imitation_steps=0, iteration=0, version=0)

    def save(self, state: RunState, *, score: ValidationScore | None) -> None:
        """Nothing."""
        del state, score


def _zeros(segment: Segment) -> TokenScores:
    zeros = np.zeros(segment.actions, np.float32)
    return TokenScores(logprobs=zeros, reference_logprobs=zeros, own_values=zeros, write_probabilities=zeros)
