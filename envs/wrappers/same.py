"""Forwards every member of an environment and of its streams; a subclass overrides what it changes."""

from collections.abc import Awaitable, Mapping, Sequence

from agile_ray.agent.environment import (
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
from envs.predictions import PredictionRow, exported


class SameStream:
    """Does all as another stream does."""

    def __init__(self, stream: Stream) -> None:
        self.id = stream.id
        self.questions: Sequence[Question] = stream.questions
        self.reward_range = reward_range(stream)
        self._stream = stream

    @property
    def remembered(self) -> Remembered:
        """What memory holds before the first session."""
        return remembered(self._stream)

    def search(self, query: str) -> Found | Awaitable[Found]:
        """Run the stream's tool.

        Raises:
            ToolError: the tool itself broke.
        """
        return self._stream.search(query)

    def search_within(self, query: str, *, question: Question, found: Sequence[Found]) -> Found | Awaitable[Found]:
        """Run the stream's tool in a session.

        Raises:
            ToolError: the tool itself broke.
        """
        return search(self._stream, query, question=question, found=found)

    def judge(self, question: Question, submission: Submission) -> Judgement:
        """Judge as the stream does."""
        return self._stream.judge(question, submission)


class SameEnvironment:
    """Does all as another environment does."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @property
    def search_function(self) -> Function:
        """How the tool is called."""
        return self._environment.search_function

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
        return self._environment.stream(split=split, index=index)

    def streams(self, split: str) -> int | None:
        """Number of streams of a split; None if they never end.

        Raises:
            ConfigError: there is no such split.
        """
        return self._environment.streams(split)

    def texts(self) -> Sequence[str]:
        """Texts to train a tokenizer on."""
        return self._environment.texts()

    def predictions(self, sessions: Sequence[Session]) -> Mapping[str, Sequence[PredictionRow]]:
        """Name of a file -> its rows.

        Raises:
            ConfigError: the environment can't be exported.
        """
        return exported(self._environment, sessions)
