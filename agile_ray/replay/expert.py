"""An expert that repeats what a past run's expert said."""

from collections.abc import Iterator
from pathlib import Path

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.errors import ConfigError, ExpertError
from agile_ray.record import store
from agile_ray.record.folder import SEGMENTS, stored
from agile_ray.types import Receipt


class RecordedExpert:
    """Says what a past run's expert said about the same session, and knows nothing else."""

    source = "recorded"

    def __init__(self, run: Path) -> None:
        """Read a run's receipts: of all that it trained on, and of its final evaluations.

        Raises:
            ConfigError: the folder holds no segments, or another version's.
        """
        self._run = run
        self._said: dict[AskKey, Advice] = {}
        self._first: dict[tuple[str, int], Advice] = {}  # by stream and position of the session
        for receipt in _recorded(run):
            advice = Advice(text=receipt.advice, answer=receipt.answer)
            key = AskKey.parse(receipt.key)
            self._said.setdefault(key, advice)
            self._first.setdefault((key.stream, key.position), advice)

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """The answer to this very ask, else to the first ask of the same session.

        Raises:
            ExpertError: the run has no receipt of that session.
        """
        advice = self._said.get(key) or self._first.get((key.stream, key.position))
        if advice is None:
            raise ExpertError(f"expert recorded: {self._run} has no receipt for {key} (question {question.id})")
        return advice


def _recorded(run: Path) -> Iterator[Receipt]:
    segments = run / SEGMENTS
    numbers = [number for number, _ in stored(segments)]
    if not numbers:
        raise ConfigError(f"env.recorded: {segments} holds no iteration; name the folder of a run that has trained")
    played = [session for number in numbers for session in store.outcomes(segments, number)]
    for path in sorted((run / "evaluation").glob("[!.]*.parquet")):
        played += store.read_sessions(path)
    for session in played:
        yield from session.receipts
