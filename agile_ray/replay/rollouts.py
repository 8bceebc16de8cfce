"""Rollouts that return the sessions that another run stored."""

from pathlib import Path

from agile_ray.errors import ContractError
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.types import Session
from agile_ray.weights import WeightsRef


class RecordedRollouts:
    """Implements `agile_ray.protocols.Rollouts`: returns the stored iterations in order, whatever the weights."""

    def __init__(self, run: RunFolder) -> None:
        """Start before the first iteration of a run."""
        self._run = run
        self._collected = 0  # iterations

    @property
    def exhausted(self) -> bool:
        """Whether the next iteration is not stored, so that `collect` would fail."""
        return not self._run.segment_file(self._collected + 1).is_file()

    def collect(self) -> list[Session]:
        """The sessions of the next iteration, as they were played.

        Raises:
            ConfigError: the iteration is not stored, or another version stored it.
        """
        sessions = store.sessions(self._run, self._collected + 1)
        self._collected += 1
        return sessions

    def evaluate(self, *, split: str, sessions: int | None, greedy: bool) -> list[Session]:
        """Refuse, because a recording can't play new sessions.

        Raises:
            ContractError: always.
        """
        raise ContractError(
            f"recorded: a recording can't play, asked for {sessions} sessions of {split} (greedy: {greedy}); "
            "loop.evaluate_every must be none"
        )

    def load(self, weights: WeightsRef) -> None:
        """Do nothing, because no weights change what was played."""

    def save(self, folder: Path, *, earlier: Path | None) -> None:
        """Write the number of collected iterations."""
        del earlier
        (folder / "collected").write_text(str(self._collected))

    def restore(self, folder: Path) -> None:
        """Continue after the number of iterations that `save` wrote."""
        self._collected = int((folder / "collected").read_text())
