"""Cuts streams into episodes of at most `env.stream_sessions` questions.

What an agent sees of its progress, what the oracle foresees, and what credit counts then end where the episode ends.
Let n = `env.stream_sessions`, and L the number of questions in a stream.

    split                         episodes made of one stream
    of streams that never end     its first n questions: there are always more streams
    of files, training            floor(L / n), at least one: all have n questions, so a collection can hold them whole;
                                  the end of the stream, fewer than n questions, is left out
    of files, other splits        ceil(L / n), the last one shorter: every question is played

The first episodes of all streams come before the second ones, so a short evaluation covers many streams. A stream with
at most n questions keeps its id; an episode cut from a longer one adds the range of its questions to it.
"""

from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache

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
from envs.splits import TRAINING


class Stretch:
    """Consecutive questions of a stream, with its tool and its judge."""

    def __init__(self, stream: Stream, *, start: int, end: int) -> None:
        """Cut a stream.

        Args:
            stream: the whole stream.
            start: position of the first question.
            end: position after the last question.
        """
        self.id = f"{stream.id}/{start}-{end - 1}"
        self.questions: Sequence[Question] = stream.questions[start:end]
        self._stream = stream

    @property
    def remembered(self) -> Remembered:
        """What memory holds before the first session."""
        return remembered(self._stream)

    @property
    def reward_range(self) -> tuple[float, float]:
        """The lowest and the highest reward."""
        return reward_range(self._stream)

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


class Stretches:
    """An environment whose streams are cut."""

    def __init__(self, environment: Environment, *, sessions: int) -> None:
        """Cut every stream of an environment.

        Args:
            sessions: largest number of questions in one stream.
        """
        self._environment = environment
        self._sessions = sessions
        self._parts = lru_cache(maxsize=None)(self._cut)

    @property
    def search_function(self) -> Function:
        """How the tool is called."""
        return self._environment.search_function

    @property
    def taught_split(self) -> str:
        """The split of imitation."""
        return taught_split(self._environment)

    def stream(self, *, split: str, index: int) -> Stream:
        """Build the `index`-th episode of a split. Beyond the last one, the split's streams are asked for a next round.

        Raises:
            ConfigError: there is no such split, or no such stream in it.
        """
        available = self._environment.streams(split)
        if available is None:
            return self._stretch(self._environment.stream(split=split, index=index), start=0)
        parts = self._parts(split)
        around, place = divmod(index, len(parts))
        original, start = parts[place]
        return self._stretch(self._environment.stream(split=split, index=around * available + original), start=start)

    def streams(self, split: str) -> int | None:
        """Number of episodes of a split; None if they never end.

        Raises:
            ConfigError: there is no such split.
        """
        return None if self._environment.streams(split) is None else len(self._parts(split))

    @property
    def skipped(self) -> Sequence[str]:
        """What is wrong with the rows that were left out."""
        return skipped(self._environment)

    def predictions(self, sessions: Sequence[Session]) -> Mapping[str, Sequence[PredictionRow]]:
        """Name of a file -> its rows.

        Raises:
            ConfigError: the environment can't be exported.
        """
        return exported(self._environment, sessions)

    def texts(self) -> Sequence[str]:
        """Texts to train a tokenizer on."""
        return self._environment.texts()

    def _cut(self, split: str) -> list[tuple[int, int]]:
        """The episodes of a split that ends: index of the stream, and position of the first question."""
        available = self._environment.streams(split) or 0
        lengths = [len(self._environment.stream(split=split, index=index).questions) for index in range(available)]
        ends = [self._end(length, split) for length in lengths]
        starts = range(0, max(ends), self._sessions)
        return [(index, start) for start in starts for index, end in enumerate(ends) if start < end]

    def _end(self, length: int, split: str) -> int:
        """Questions of a stream that are played."""
        return length - length % self._sessions if split in TRAINING and length >= self._sessions else length

    def _stretch(self, stream: Stream, *, start: int) -> Stream:
        end = min(start + self._sessions, len(stream.questions))
        return stream if end - start == len(stream.questions) else Stretch(stream, start=start, end=end)
