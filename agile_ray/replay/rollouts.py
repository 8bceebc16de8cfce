"""Sessions that another run stored, in place of engines that play them."""

from pathlib import Path

from agile_ray.errors import ContractError
from agile_ray.record import store
from agile_ray.record.folder import segment_file
from agile_ray.types import Session
from agile_ray.weights import WeightsRef


class RecordedRollouts:
    """Implements `agile_ray.protocols.Rollouts`: iteration after iteration as stored, whatever weights are given."""

    def __init__(self, segments: Path) -> None:
        """Begin before the first iteration of a run's folder of segments."""
        self._segments = segments
        self._collected = 0  # iterations

    @property
    def exhausted(self) -> bool:
        """Whether the next iteration is not stored, so that `collect` would fail."""
        return not segment_file(self._segments, self._collected + 1).is_file()

    def collect(self) -> list[Session]:
        """The next iteration's sessions, as they were played.

        Raises:
            ConfigError: it is not stored, or by another version.
        """
        sessions = store.sessions(self._segments, self._collected + 1)
        self._collected += 1
        return sessions

    def evaluate(self, *, split: str, sessions: int | None, greedy: bool) -> list[Session]:
        """Refuse: nothing is played here.

        Raises:
            ContractError: always.
        """
        raise ContractError(
            f"recorded: a recording can't play, asked for {sessions} sessions of {split} (greedy: {greedy}); "
            "loop.evaluate_every must be none"
        )

    def load(self, weights: WeightsRef) -> None:
        """Leave the weights alone: what was played is what it was."""

    def state(self) -> bytes:
        """How many iterations were collected."""
        return str(self._collected).encode()

    def restore(self, state: bytes) -> None:
        """Go on behind as many iterations."""
        self._collected = int(state)
