"""Rows of an exported evaluation, as AGILE's data/eval.py reads them: a file a category, a line a question."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from agile_ray.agent.environment import Environment
from agile_ray.errors import ConfigError
from agile_ray.types import Session

PredictionRow = Mapping[str, object]


@runtime_checkable
class Exports(Protocol):
    """What an environment has, in addition, whose evaluations can be exported."""

    def predictions(self, sessions: Sequence[Session]) -> Mapping[str, Sequence[PredictionRow]]:
        """Name of a file -> its rows, in the order of the data file.

        Questions between two that were played have a row without an answer, so that lines stay aligned.
        """
        ...


def exported(environment: Environment, sessions: Sequence[Session]) -> Mapping[str, Sequence[PredictionRow]]:
    """Name of a file -> its rows.

    Raises:
        ConfigError: the environment has no data file that rows could be aligned with.
    """
    if not isinstance(environment, Exports):
        raise ConfigError("predictions: only productqa, medmcqa and hotpotqa can be exported; leave it out")
    return environment.predictions(sessions)


def prediction_row(
    id: str, session: Session | None, *, question: str, kind: str, short_answer: str | list[str] | None
) -> PredictionRow:
    """One row.

    Args:
        id: of the question.
        session: that played it; None: none did.
        question: its text.
        kind: of question, as the data file calls it.
        short_answer: what was submitted, in the form in which it is judged.
    """
    advice = None if session is None or not session.receipts else session.receipts[-1].advice
    return {
        "id": id,
        "question": question,
        "type": kind,
        "short_answer": short_answer,
        "long_answer": advice or short_answer,
        "asked": session is not None and session.asks > 0,
        "correct": session is not None and session.correct,
    }
