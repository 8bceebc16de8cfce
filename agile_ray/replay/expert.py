"""An expert that repeats the advice of a past run's expert."""

from collections.abc import Iterator
from pathlib import Path

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.errors import ConfigError, ExpertError
from agile_ray.record import evaluations, store
from agile_ray.record.folder import RunFolder
from agile_ray.types import Receipt


class RecordedExpert:
    """Repeats what a past run's expert said in the same session, and knows nothing else."""

    source = "recorded"

    def __init__(self, run: Path) -> None:
        """Read the receipts of a run's training and of its final evaluations.

        Raises:
            ConfigError: the folder holds no segments, or another version wrote them.
        """
        self._run = run
        self._said: dict[AskKey, Advice] = {}
        self._first: dict[tuple[str, int], Advice] = {}  # by stream and position of the session
        for receipt in _recorded(RunFolder(run)):
            advice = Advice(text=receipt.advice, answer=receipt.answer)
            key = AskKey.parse(receipt.key)
            self._said.setdefault(key, advice)
            self._first.setdefault((key.stream, key.position), advice)

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """The recorded advice of this ask, else of the first ask of the same session.

        Raises:
            ExpertError: the run has no receipt of that session.
        """
        advice = self._said.get(key) or self._first.get((key.stream, key.position))
        if advice is None:
            raise ExpertError(f"expert recorded: {self._run} has no receipt for {key} (question {question.id})")
        return advice


def _recorded(run: RunFolder) -> Iterator[Receipt]:
    iterations = run.stored_iterations()
    if not iterations:
        raise ConfigError(
            f"env.recorded: {run.segments} must hold iterations, found none; name the folder of a run that has trained"
        )
    for iteration in iterations:
        for session in store.outcomes(run, iteration):
            yield from session.receipts
    for played in evaluations.kept(run).values():
        for session in played:
            yield from session.receipts
