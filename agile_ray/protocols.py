"""What the loop needs from the rest of the system."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from agile_ray.types import (
    Assigned,
    Demonstration,
    RunState,
    Segment,
    Session,
    TokenScores,
    TrainingRow,
    Update,
    ValidationScore,
)
from agile_ray.weights import WeightsRef


class Rollouts(Protocol):
    """Plays sessions with the weights that it was last given."""

    def collect(self) -> list[Session]:
        """Play one iteration: the sessions of every lane, in stream order within a lane.

        Raises:
            EngineError: an engine died or lost a request.
            DeadlineError: an engine took too long.
        """
        ...

    def evaluate(self, *, split: str, sessions: int | None, greedy: bool) -> list[Session]:
        """Play the streams that `agile_ray.evaluation.plays` chooses, with empty memories.

        The lanes of `collect` are not affected. Greedy evaluations step all lanes in lockstep, so they repeat exactly.
        """
        ...

    def load(self, weights: WeightsRef) -> None:
        """Serve these weights from now on, and verify it.

        Raises:
            SyncError: an engine's logprobs are not those of the weights.
        """
        ...

    def save(self, folder: Path, *, earlier: Path | None) -> None:
        """Write lanes and memories into a checkpoint; `record.checkpoints.Lanes` explains the arguments."""
        ...

    def restore(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        ...


class Learners(Protocol):
    """One policy and one critic, sharded over ranks that the caller never sees."""

    def imitate(self, demonstrations: Sequence[Demonstration], *, step: int, steps: int) -> Update:
        """Take SFT step `step` of `steps`, from 0, on the action tokens of these segments."""
        ...

    def score(
        self, segments: Sequence[Segment], prefixes: Sequence[Segment]
    ) -> tuple[list[TokenScores], list[TokenScores]]:
        """Score every action token with the current weights.

        Args:
            segments: of sessions.
            prefixes: counterfactual prefixes that credit needs; may be empty.

        Returns:
            the scores of the segments, and the scores of the prefixes.
        """
        ...

    def learn(self, rows: Sequence[TrainingRow], *, seed: int, progress: float) -> Update:
        """Run one PPO update.

        Args:
            rows: what to learn from.
            seed: of the order of minibatches.
            progress: share of the run's iterations that are finished, from 0 to 1; sets the learning rate.

        Raises:
            RankLostError: a rank died, hangs, or was cut off from the others; all other calls may raise it, too.
            LearnerError: the loss is not finite (before the optimizer step).
        """
        ...

    def publish(self, version: int) -> WeightsRef:
        """Make the current weights available to the engines, as this version."""
        ...


class Credits(Protocol):
    """Assigns credit across sessions."""

    def prefixes(self, sessions: Sequence[Session]) -> list[Segment]:
        """Counterfactual prefixes that `assign` needs scored; may be empty."""
        ...

    def assign(
        self,
        sessions: Sequence[Session],
        segments: Sequence[Segment],
        scores: Sequence[TokenScores],
        prefix_scores: Sequence[TokenScores],
    ) -> Assigned:
        """Assign every session its credit, and make the training rows.

        Args:
            sessions: of one iteration, in stream order within a stream.
            segments: cut from the sessions.
            scores: of the segments.
            prefix_scores: of what `prefixes` returned for the same sessions.
        """
        ...


class Checkpoints(Protocol):
    """Saves and restores a run, so that it continues as if it had never stopped."""

    def restore(self) -> RunState:
        """Restore every part of the run to its last checkpoint; return its state."""
        ...

    def save(self, state: RunState, *, score: ValidationScore | None) -> None:
        """Save a checkpoint, completely or not at all.

        Args:
            state: of the run.
            score: on validation; None if it was not evaluated at this state.
        """
        ...


class Recorder(Protocol):
    """Records what happened, and decides nothing."""

    def timed(self, phase: str) -> AbstractContextManager[None]:
        """Measure the wall time of a phase."""
        ...

    def imitation(self, state: RunState, update: Update) -> None: ...

    def iteration(
        self,
        state: RunState,
        *,
        sessions: Sequence[Session],
        assigned: Assigned,
        update: Update,
    ) -> None: ...

    def evaluation(self, state: RunState, name: str, sessions: Sequence[Session]) -> None: ...
