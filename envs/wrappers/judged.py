"""Another judge of words than the environment's own."""

from agile_ray.agent.environment import RIGHT_OR_WRONG, Environment, Judgement, Question, Stream, Submission
from envs.dataset.judges import Judge
from envs.wrappers.same import SameEnvironment, SameStream


class JudgedStream(SameStream):
    """A stream whose words are judged by a function. Rows are judged by the stream."""

    def __init__(self, stream: Stream, judge: Judge) -> None:
        super().__init__(stream)
        self.reward_range = getattr(judge, "reward_range", RIGHT_OR_WRONG)
        self._judge = judge

    def judge(self, question: Question, submission: Submission) -> Judgement:
        """The expert's text is right if it is the gold answer; other words are judged."""
        if submission.rows is not None:
            return self._stream.judge(question, submission)
        if submission.advised and submission.text == question.answer:
            return self.reward_range[1]
        return self._judge(question, submission.text)


class Judged(SameEnvironment):
    """An environment whose words are judged by a function."""

    def __init__(self, environment: Environment, judge: Judge) -> None:
        super().__init__(environment)
        self._judge = judge

    def stream(self, *, split: str, index: int) -> Stream:
        """Build the `index`-th stream of a split.

        Raises:
            ConfigError: there is no such split, or no such stream in it.
        """
        return JudgedStream(super().stream(split=split, index=index), self._judge)
