"""Environments each of whose splits is one stream: the questions of a file, in its order."""

from collections.abc import Callable, Mapping, Sequence

from agile_ray.agent.environment import Found, Judgement, Question, Remembered, Submission
from agile_ray.agent.functions import Function
from agile_ray.errors import ConfigError, ToolError
from agile_ray.seeds import derive
from agile_ray.types import Session
from envs.predictions import PredictionRow, prediction_row
from envs.splits import TRAINING, round_offset

TEXTS = 4_000  # questions whose texts train a tokenizer

Search = Callable[[str, Question, Sequence[Found]], Found]
"""The tool: what the policy wrote, the session's question, and what the tool returned earlier in the session."""
Judge = Callable[[Question, str], Judgement]
"""Whether words that are not the expert's answer a question, or the reward that they earn."""


def no_tool(query: str, question: Question, found: Sequence[Found]) -> Found:
    """Refuse every query, since there is no tool."""
    del query, question, found
    return Found(text="error : there is no tool", rows=None, bad_query=True)


class QuestionStream:
    """The questions of a split, starting at an offset and wrapping around."""

    def __init__(
        self, *, id: str, questions: Sequence[Question], remembered: Remembered, search: Search, judge: Judge
    ) -> None:
        self.id = id
        self.questions = questions
        self.remembered = remembered
        self._search = search
        self._judge = judge

    def search(self, query: str) -> Found:
        """Refuse, since the tool depends on the session; the executor calls `search_within`.

        Raises:
            ToolError: always.
        """
        raise ToolError(f"{self.id}: the tool answers within a session only, found the query {query!r} outside of one")

    def search_within(self, query: str, *, question: Question, found: Sequence[Found]) -> Found:
        """Run the tool."""
        return self._search(query, question, found)

    def judge(self, question: Question, submission: Submission) -> Judgement:
        """The expert's text is right if it is the gold answer; other words are judged by the task's rule."""
        if submission.advised and submission.text == question.answer:
            return True
        return False if submission.rows is not None else self._judge(question, submission.text)


class OneStream:
    """The environment."""

    taught_split = "imitation"

    def __init__(
        self,
        name: str,
        *,
        splits: Mapping[str, Sequence[Question]],
        judge: Judge,
        search_function: Function = Function.SEARCH,
        search: Search = no_tool,
        remembered: Remembered | None = None,
        skipped: Sequence[str] = (),
    ) -> None:
        """Set the questions of each split.

        Args:
            name: of the environment.
            splits: imitation, train, validation and test; none is empty.
            judge: of words.
            search_function: how its tool is called.
            search: the tool.
            remembered: what memory holds before the first session of every stream.
            skipped: what is wrong with the rows that were left out.

        Raises:
            ConfigError: a split is empty.
        """
        self.search_function = search_function
        self.skipped = skipped
        self._name = name
        self._splits = splits
        self._search = search
        self._judge = judge
        self._remembered = remembered or Remembered()
        empty = [split for split, questions in splits.items() if not questions]
        if empty:
            raise ConfigError(f"env.data: {name} needs questions in every split, found none for {', '.join(empty)}")

    def streams(self, split: str) -> int:
        """One.

        Raises:
            ConfigError: no such split.
        """
        if split not in self._splits:
            raise ConfigError(f"{self._name}: no split {split!r}; there are {', '.join(self._splits)}")
        return 1

    def stream(self, *, split: str, index: int) -> QuestionStream:
        """The questions of a split. In training, further indices are further rounds, which begin at other places.

        Raises:
            ConfigError: no such split, or no such stream in it.
        """
        self.streams(split)
        if index != 0 and (index < 0 or split not in TRAINING):
            raise ConfigError(f"{self._name}: the {split} split has one stream, asked for number {index}")
        questions = self._splits[split]
        offset = round_offset(index, length=len(questions))
        return QuestionStream(
            id=f"{self._name}/{split}/{index}",
            questions=(*questions[offset:], *questions[:offset]),
            remembered=self._remembered,
            search=self._search,
            judge=self._judge,
        )

    def texts(self) -> Sequence[str]:
        """What the agent reads and writes on a sample of training questions, the same sample in every call."""
        questions = [question for split in TRAINING for question in self._splits[split]]
        questions.sort(key=lambda question: derive(0, question.id))
        return [text for question in questions[:TEXTS] for text in _texts(question)]

    def predictions(self, sessions: Sequence[Session]) -> dict[str, list[PredictionRow]]:
        """Split -> its questions in order up to the last one that was played."""
        exported: dict[str, list[PredictionRow]] = {}
        for split in dict.fromkeys(session.stream.split("/")[1] for session in sessions):
            played = {one.question_id: one for one in sessions if one.stream.split("/")[1] == split}
            questions = self._splits[split]
            last = max(place for place, question in enumerate(questions) if question.id in played)
            exported[split] = [_prediction(question, played.get(question.id)) for question in questions[: last + 1]]
        return exported


def _prediction(question: Question, session: Session | None) -> PredictionRow:
    """A right answer is spelt as the gold one, so that stricter rules of comparison agree."""
    answer = None if session is None else question.answer if session.correct else session.answer
    return prediction_row(question.id, session, question=question.text, kind=question.kind, short_answer=answer)


def _texts(question: Question) -> tuple[str, ...]:
    return (
        f"progress 10 questions 2 knowledge 3\n{question.shown}\n",
        f"history : {question.text} {question.advice}\nknowledge : {question.knowledge or 'none'}\n",
        f"advice : {question.advice}\n",
        f" {question.answer}",
    )
