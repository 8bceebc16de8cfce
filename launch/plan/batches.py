"""What one iteration and the whole run consist of: sessions, rows, tokens, micro-batches, optimizer steps.

The planner of the learners itself (learner/plan.py) cuts rows of given lengths into micro-batches, so that a run with
sessions of these lengths has the same.
"""

from dataclasses import dataclass

import numpy as np

from agile_ray.config import RunConfig
from agile_ray.scripted.demonstration_file import sessions_of
from launch.plan.lengths import Lengths
from learner.plan import padding, plan

MOST_ROWS = 4096
"""Rows of one optimizer step that are cut into micro-batches; more are extrapolated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The arithmetic of a run. Rows are segments; a session has one unless its context was cleared in between."""

    imitation_rows: int  # that imitation learns
    imitation_steps: int  # optimizer steps
    sessions: int  # of one iteration
    rows: int  # of one iteration
    tokens: int  # of the rows of one iteration, without padding
    steps: int  # optimizer steps of one iteration, all epochs
    micro_batches: int  # of one optimizer step, on each rank
    padding: float  # share of the processed tokens
    iterations: int
    validations: int

    @property
    def learned_tokens(self) -> int:
        """Tokens that PPO learns from in the whole run, each epoch counted."""
        return self.iterations * self.tokens

    @property
    def all_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.imitation_steps + self.iterations * self.steps


def sessions_per_iteration(config: RunConfig) -> int:
    """Sessions that all lanes play in one iteration."""
    return config.loop.lanes * config.loop.sessions_per_lane


def batches(config: RunConfig, lengths: Lengths, *, imitation_rows: int | None = None) -> Batches:
    """The arithmetic of a run whose rows have these lengths.

    Args:
        config: of the run.
        lengths: of rows that PPO learns.
        imitation_rows: that imitation learns; None: as many as it plays.
    """
    imitation, ppo, every = config.imitation, config.ppo, config.loop.evaluate_every
    sessions = sessions_per_iteration(config)
    rows = round(sessions * lengths.rows_per_session)
    minibatches = min(ppo.minibatches, rows)
    sampled = min(rows, MOST_ROWS * minibatches)
    cut_up = plan(
        np.resize(lengths.tokens, sampled),
        seed=config.seed,
        minibatches=minibatches,
        ranks=config.learner.ranks,
        micro_batch_tokens=config.learner.micro_batch_tokens,
    )
    iterations = config.loop.iterations
    if imitation_rows is None:
        imitation_rows = sessions_of(imitation) + imitation.search_rows
    return Batches(
        imitation_rows=imitation_rows,
        imitation_steps=-(-imitation_rows // imitation.batch),
        sessions=sessions,
        rows=rows,
        tokens=round(rows * float(lengths.tokens.mean())),
        steps=ppo.epochs * minibatches,
        micro_batches=max(1, round(max(len(one.by_rank[0]) for one in cut_up) * rows / sampled)),
        padding=padding(cut_up),
        iterations=iterations,
        validations=0 if every is None or not iterations else iterations // every + (iterations % every > 0),
    )
