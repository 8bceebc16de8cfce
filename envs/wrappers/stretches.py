"""Cuts streams into episodes of at most `env.stream_sessions` questions.

What an agent sees of its progress, what the oracle foresees, and what credit counts then end where the episode ends.
Let n = `env.stream_sessions`, and L the number of questions in a stream.

    split                         episodes made of one stream
    of streams that never end     its first n questions: there are always more streams
    of files, training            floor(L / n), at least one: all have n questions, so a collection can hold them whole;
                                  the end of the stream, fewer than n questions, is left out
    of files, other splits        the whole stream: `evaluate.sessions` says how much of each is played

In training, the first episodes of all streams come before the second ones. A stream with at most n questions keeps its
id; an episode cut from a longer one adds the range of its questions to it.
"""

from collections.abc import Sequence
from functools import lru_cache

from agile_ray.agent.environment import Environment, Question, Stream
from envs.splits import TRAINING
from envs.wrappers.same import SameEnvironment, SameStream


class Stretch(SameStream):
    """Consecutive questions of a stream, with its tool and its judge."""

    def __init__(self, stream: Stream, *, start: int, end: int) -> None:
        """Cut a stream.

        Args:
            stream: the whole stream.
            start: position of the first question.
            end: position after the last question.
        """
        super().__init__(stream)
        self.id = f"{stream.id}/{start}-{end - 1}"
        self.questions: Sequence[Question] = stream.questions[start:end]


class Stretches(SameEnvironment):
    """An environment whose streams are cut."""

    def __init__(self, environment: Environment, *, sessions: int) -> None:
        """Cut every stream of an environment.

        Args:
            sessions: largest number of questions in one stream.
        """
        super().__init__(environment)
        self._sessions = sessions
        self._parts = lru_cache(maxsize=None)(self._cut)

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
        stream = self._environment.stream(split=split, index=around * available + original)
        return self._stretch(stream, start=start) if split in TRAINING else stream

    def streams(self, split: str) -> int | None:
        """Number of episodes of a split; None if they never end.

        Raises:
            ConfigError: there is no such split.
        """
        return None if self._environment.streams(split) is None else len(self._parts(split))

    def _cut(self, split: str) -> list[tuple[int, int]]:
        """The episodes of a split that ends: index of the stream, and position of the first question."""
        available = self._environment.streams(split) or 0
        if split not in TRAINING:
            return [(index, 0) for index in range(available)]
        lengths = [len(self._environment.stream(split=split, index=index).questions) for index in range(available)]
        ends = [max(length - length % self._sessions, min(length, self._sessions)) for length in lengths]
        starts = range(0, max(ends), self._sessions)
        return [(index, start) for start in starts for index, end in enumerate(ends) if start < end]

    def _stretch(self, stream: Stream, *, start: int) -> Stream:
        end = min(start + self._sessions, len(stream.questions))
        return stream if end - start == len(stream.questions) else Stretch(stream, start=start, end=end)
