"""An expert that repeats the advice of a past run's expert.

Advice belongs to its question, wherever the question stands in its stream. A stored session names its stream, and the
id, kind and topic of its question; it does not have the question's text. So a question whose text was edited under
the same id gets the advice on the old text.

Of several receipts of one ask, an answer is repeated before one that is late or broken.

A question that the run never asked has no recorded advice, so an ask on it fails, whoever asks. A run that is finished
has asked every question of its final evaluation: `always_ask` did. So for the same test questions nothing is missing.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.errors import ConfigError, ExpertError
from agile_ray.record import evaluations, store
from agile_ray.record.folder import RunFolder
from agile_ray.types import Origin, Outcome, Session


class _Asked(NamedTuple):
    """A question, as a stored session names it."""

    stream: str
    id: str
    kind: str
    topic: str


class RecordedExpert:
    """Repeats what a past run's expert said on the same question of the same stream, and knows nothing else."""

    source = "recorded"

    def __init__(self, run: Path, *, to: str = "") -> None:
        """Read the receipts of a run's training and of its evaluations.

        The reliability is the share of right answers among the sessions that submitted the advice itself; 1 if none
        did. What was not answered is repeated as such.

        Args:
            run: the folder of the run.
            to: which of its experts is repeated, as `AskKey.to`.

        Raises:
            ConfigError: the folder holds no segments, or another version wrote them.
        """
        self._run = run
        self._said: dict[_Asked, dict[int, Advice]] = {}  # by number of the ask in its session
        submitted: list[bool] = []
        found: list[tuple[_Asked, int, Advice]] = []
        for session in _sessions(RunFolder(run)):
            if session.origin is Origin.ADVICE and _asked_last(session) == to:
                submitted.append(session.correct)
            asked = _Asked(session.stream, session.question_id, session.kind, session.topic)
            for receipt in session.receipts:
                key = AskKey.parse(receipt.key)
                if key.to == to:
                    advice = Advice(text=receipt.advice, answer=receipt.answer, outcome=receipt.outcome)
                    found.append((asked, key.number, advice))
        for asked, number, advice in sorted(found, key=lambda one: one[2].outcome is not Outcome.ANSWERED):
            self._said.setdefault(asked, {}).setdefault(number, advice)
        self.reliability = fmean(submitted) if submitted else 1.0

    def knows(self, question: Question, *, stream: str) -> bool:
        """Whether the run asked this question in this stream."""
        return _Asked(stream, question.id, question.kind, question.topic) in self._said

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """The recorded advice of this ask, else of the first ask on the same question; an answer if there is one.

        Raises:
            ExpertError: the run never asked this question in this stream.
        """
        said = self._said.get(_Asked(key.stream, question.id, question.kind, question.topic))
        if said is None:
            raise ExpertError(
                f"expert recorded: {self._run} has no receipt for the question; "
                f"stream {key.stream}, question {question.id} ({question.kind}, {question.topic})"
            )
        return said.get(key.number) or next(iter(said.values()))


def _asked_last(session: Session) -> str:
    """Whose advice the session submitted."""
    answered = [one for one in session.receipts if one.outcome is Outcome.ANSWERED]
    return AskKey.parse(answered[-1].key).to if answered else ""


def _sessions(run: RunFolder) -> Iterator[Session]:
    iterations = run.stored_iterations()
    if not iterations:
        raise ConfigError(
            f"env.expert: {run.segments} must hold iterations, found none; name the folder of a run that has trained"
        )
    for iteration in iterations:
        yield from store.outcomes(run, iteration)
    for entry in run.evaluated_entries():
        yield from evaluations.read(run, entry)
