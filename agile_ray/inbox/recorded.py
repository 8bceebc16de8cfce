"""An expert that repeats what people said at an inbox, from its export.

An ask gets the answer to the same key; else the first answer to the same question of the same stream. What nobody
answered has no answer again, for the same reason.
"""

from pathlib import Path
from typing import NamedTuple

from agile_ray.agent.environment import Question
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.errors import ConfigError, ExpertError
from agile_ray.inbox.asks import RECORD, Record, State, shortened
from agile_ray.inbox.client import advice
from agile_ray.record.json_files import read_json_lines


class _Asked(NamedTuple):
    stream: str
    question_id: str
    text: str  # as the export holds it


class RecordedInbox:
    """Repeats the answers of an export, and knows nothing else."""

    source = "recorded"
    reliability = 1.0

    def __init__(self, path: Path, *, to: str = "") -> None:
        """Read an export of the form JSONL.

        Args:
            path: of the file.
            to: who was asked, as `AskKey.to`.

        Raises:
            ConfigError: the file is none, or nothing in it is closed.
        """
        lines = read_json_lines(path, RECORD.validate_json, expected="an ask with what became of it")
        own = (line for line in lines if AskKey.parse(line.ask.key).to == to)
        closed = [line for line in own if line.told.state is not State.OPEN]
        if not closed:
            raise ConfigError(f"env.expert: {path} must hold asks that are closed, found none")
        self._path = path
        self._by_key = {line.ask.key: line for line in closed}
        self._by_question: dict[_Asked, Record] = {}
        for line in sorted(closed, key=lambda line: line.told.state is not State.ANSWERED):  # answers first
            self._by_question.setdefault(_Asked(line.ask.stream, line.ask.question_id, line.ask.text), line)

    def knows(self, question: Question, *, stream: str) -> bool:
        """Whether this question was asked in this stream."""
        return _asked(question, stream=stream) in self._by_question

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        """The recorded answer, or why there is none.

        Raises:
            ExpertError: nobody answered it by the deadline, or it was never asked.
        """
        own = self._by_key.get(str(key))
        if own is None or own.ask.text != shortened(question.text):
            own = self._by_question.get(_asked(question, stream=key.stream))
        if own is None:
            raise ExpertError(f"expert recorded: {self._path} has no ask for {key}, question {question.id}")
        return advice(own.told, where=f"expert recorded: {key}")


def _asked(question: Question, *, stream: str) -> _Asked:
    return _Asked(stream, question.id, shortened(question.text))
