"""An environment with another judge of words, or another tool, than its own."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agile_ray.agent.environment import (
    RIGHT_OR_WRONG,
    Environment,
    Found,
    Judgement,
    Question,
    Remembered,
    Stream,
    Submission,
    remembered,
    reward_range,
    search,
    skipped,
    taught_split,
)
from agile_ray.agent.functions import Function
from agile_ray.types import Session
from envs.dataset.judges import Judge
from envs.predictions import PredictionRow, exported

Tool = Callable[[str], Awaitable[Found]]
"""What runs what the policy wrote after the function token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What takes the place of an environment's own; None: its own stays."""

    judge: Judge | None = None  # of words; rows are judged by the environment
    tool: Tool | None = None
    search_function: Function | None = None  # how the tool is called
    note: str = ""  # added to what [GetQuestion] shows


class ChangedStream:
    """A stream with changes."""

    def __init__(self, stream: Stream, change: Change) -> None:
        self.id = stream.id
        self.questions: Sequence[Question] = _noted(stream.questions, change.note)
        self.reward_range = reward_range(stream)
        if change.judge is not None:
            self.reward_range = getattr(change.judge, "reward_range", RIGHT_OR_WRONG)
        self._stream = stream
        self._change = change

    @property
    def remembered(self) -> Remembered:
        """What memory holds before the first session."""
        return remembered(self._stream)

    def search(self, query: str) -> Found | Awaitable[Found]:
        """Run the tool.

        Raises:
            ToolError: the tool itself broke.
        """
        return self._stream.search(query) if self._change.tool is None else self._change.tool(query)

    def search_within(self, query: str, *, question: Question, found: Sequence[Found]) -> Found | Awaitable[Found]:
        """Run the tool in a session.

        Raises:
            ToolError: the tool itself broke.
        """
        if self._change.tool is None:
            return search(self._stream, query, question=question, found=found)
        return self._change.tool(query)

    def judge(self, question: Question, submission: Submission) -> Judgement:
        """The expert's text is right if it is the gold answer; other words are judged."""
        if self._change.judge is None or submission.rows is not None:
            return self._stream.judge(question, submission)
        if submission.advised and submission.text == question.answer:
            return self.reward_range[1]
        return self._change.judge(question, submission.text)


def _noted(questions: Sequence[Question], note: str) -> Sequence[Question]:
    return [replace(one, shown=f"{one.shown}\n{note}") for one in questions] if note else questions


class Changed:
    """An environment with changes."""

    def __init__(self, environment: Environment, change: Change) -> None:
        self._environment = environment
        self._change = change

    @property
    def search_function(self) -> Function:
        """How the tool is called."""
        return self._change.search_function or self._environment.search_function

    @property
    def taught_split(self) -> str:
        """The split of imitation."""
        return taught_split(self._environment)

    @property
    def skipped(self) -> Sequence[str]:
        """What is wrong with the rows that were left out."""
        return skipped(self._environment)

    def stream(self, *, split: str, index: int) -> Stream:
        """Build the `index`-th stream of a split.

        Raises:
            ConfigError: there is no such split, or no such stream in it.
        """
        return ChangedStream(self._environment.stream(split=split, index=index), self._change)

    def streams(self, split: str) -> int | None:
        """Number of streams of a split; None if they never end.

        Raises:
            ConfigError: there is no such split.
        """
        return self._environment.streams(split)

    def texts(self) -> Sequence[str]:
        """Texts to train a tokenizer on."""
        texts = self._environment.texts()
        if self._change.tool is None:
            return texts
        questions = self._environment.stream(split="train", index=0).questions
        return (*texts, f"{self._change.note}\n", *(f" {one.query}" for one in questions if one.query))

    def predictions(self, sessions: Sequence[Session]) -> Mapping[str, Sequence[PredictionRow]]:
        """Name of a file -> its rows.

        Raises:
            ConfigError: the environment can't be exported.
        """
        return exported(self._environment, sessions)
