"""What the loop needs from the rest of the system, and nothing more."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from agile_ray.types import Assigned, Demonstration, RunState, Segment, Session, TokenScores, TrainingRow, Update
from agile_ray.weights import WeightsRef


class Rollouts(Protocol):
    """Plays sessions with the weights it was last given."""

    def collect(self) -> list[Session]:
        """One iteration's sessions, of every lane, in stream order within a lane."""
        ...

    def evaluate(self, *, split: str, sessions: int | None, greedy: bool) -> list[Session]:
        """Play what `agile_ray.evaluation.plays` names, with fresh memories; the lanes of `collect` are untouched.

        Greedy evaluations step their lanes in lockstep, so that they repeat exactly.
        """
        ...

    def load(self, weights: WeightsRef) -> None:
        """Serve these weights from now on, and check that it is so.

        Raises:
            SyncError: the engine's logprobs say that it does not.
        """
        ...

    def state(self) -> bytes: ...  # lanes and memories, for a checkpoint

    def restore(self, state: bytes) -> None: ...


class Learners(Protocol):
    """One policy and one critic, sharded over ranks the caller never sees."""

    def imitate(self, demonstrations: Sequence[Demonstration], *, step: int) -> Update:
        """One SFT step on the action tokens of these segments; `step`, from 0, sets the learning rate."""
        ...

    def score(self, prefixes: Sequence[Segment]) -> list[TokenScores]:
        """What the present weights think of every action token, also of counterfactual prefixes."""
        ...

    def learn(self, rows: Sequence[TrainingRow], *, seed: int, done: float) -> Update:
        """One PPO update.

        Args:
            done: share of the run's iterations that lie behind, from 0 to 1; sets the learning rate.

        Raises:
            LearnerError: a rank died, or the loss is not finite (before the optimizer step).
        """
        ...

    def publish(self, version: int) -> WeightsRef: ...


class Checkpoints(Protocol):
    """Saves and restores a run so that it continues as if never stopped."""

    def restore(self) -> RunState: ...

    def save(self, state: RunState, *, score: float | None) -> None:
        """Write aside, then rename. `score`: total on validation, if it was measured for this state."""
        ...


class Recorder(Protocol):
    """Writes what happened. Never decides anything."""

    def timed(self, phase: str) -> AbstractContextManager[None]: ...

    def imitation(self, state: RunState, update: Update) -> None: ...

    def iteration(
        self,
        state: RunState,
        *,
        sessions: Sequence[Session],
        assigned: Assigned,
        update: Update,
    ) -> None: ...

    def evaluation(self, state: RunState, name: str, sessions: Sequence[Session]) -> float:
        """Record it and return its total score."""
        ...
