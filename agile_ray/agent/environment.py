"""What an environment provides: streams of questions, each stream with a tool and a judge.

A question needs an id, a text and an answer. Its other fields are gold: the agent never sees them, and each unlocks
something, as docs/extending.md lists.

Environments read and return text, never tokens. They are deterministic: playing the same stream twice gives the same
questions, results and judgements.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from agile_ray.agent.functions import Function


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One session's question. `shown`, `item`, `advice` and `topic`, if empty, become what their comments say."""

    id: str  # unique within its stream
    text: str  # the user's words; also the query for memory
    answer: str  # gold short answer
    product: str = ""  # QA pairs are stored under it and found only under it
    kind: str = "question"  # for reports; not shown to the policy
    topic: str = ""  # one of few; `fitted` credit estimates the value of a memory entry per topic. "": `kind`
    shown: str = ""  # what [GetQuestion] appends after the status line: schema, product, question. "": `text`
    item: str = ""  # the hidden fact that the answer depends on: equal items have equal answers. "": `text`
    advice: str = ""  # what the gold expert says: the gold long answer, or the short one. "": `answer`
    knowledge: str = ""  # what can be learned beyond this product; "" if nothing
    query: str = ""  # gold query, if the tool answers the question; else ""
    guess: str = ""  # the best answer without knowing the item
    guess_probability: float = 0.0  # probability that `guess` is right, in [0, 1]; only oracles may use it
    guess_drawn: bool = False  # the answer was drawn with it, whatever the policy may see: a right guess is luck
    more_queries: tuple[str, ...] = ()  # gold queries after the first, if the tool answers the question step by step
    query_shown: str = ""  # the part of `shown` that the gold query depends on; "": all of it
    wrong_query: str = ""  # a query like the gold one that the tool refuses; "": none is known

    def __post_init__(self) -> None:
        for name, otherwise in (
            ("topic", self.kind),
            ("shown", self.text),
            ("item", self.text),
            ("advice", self.answer),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the tool returned."""

    text: str  # what the policy reads, an error message included
    # ids found; submitted if the policy predicts nothing afterwards. None: the text is to be read, and no answer
    rows: tuple[str, ...] | None
    bad_query: bool  # the tool could not run the query; the text says why
    remark: str = ""  # one word for the session's remarks, such as "tool_late"; "" if there is nothing to count


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the policy submits: its own words, the expert's answer, or the rows that the tool returned."""

    text: str
    rows: tuple[str, ...] | None  # None: the text is judged
    advised: bool = False  # the text is the expert's answer


Judgement = float | Awaitable[float]
"""What a judge returns: True or False, or a reward."""


class Stream(Protocol):
    """The task of one episode: questions in order, with their tool and judge."""

    @property
    def id(self) -> str: ...  # names split, category and seed, so it is unique

    @property
    def questions(self) -> Sequence[Question]: ...

    def search(self, query: str) -> Found | Awaitable[Found]:
        """Run the tool on a query that the policy wrote.

        It runs in a thread, as `judge` does, so it may block. It may be `async`: then it runs on an event loop of its
        own there.

        Raises:
            ToolError: the tool itself broke. For a query that it can't run, return a `Found` with `bad_query`.
        """
        ...

    def judge(self, question: Question, submission: Submission) -> Judgement:
        """Whether the submission is right, or the reward that it earns, in the stream's range. May be `async`."""
        ...


RIGHT_OR_WRONG = (0.0, 1.0)
"""The range of rewards of a stream that declares none."""


@runtime_checkable
class Graded(Protocol):
    """What a stream has, in addition, whose judge gives other rewards than 0 to 1."""

    @property
    def reward_range(self) -> tuple[float, float]: ...  # the lowest reward, and the highest: of a right answer


def reward_range(stream: "Stream") -> tuple[float, float]:
    """The lowest and the highest reward of a stream's judge, in units of the reward for a right answer."""
    return stream.reward_range if isinstance(stream, Graded) else RIGHT_OR_WRONG


async def judged(stream: "Stream", question: Question, submission: Submission) -> float:
    """What a stream's judge says, whether it is async or not."""
    verdict = stream.judge(question, submission)
    return await verdict if isinstance(verdict, Awaitable) else verdict


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Remembered:
    """Questions whose answers memory holds before the first session. Compared by identity: many streams share one."""

    questions: Sequence[Question] = ()


@runtime_checkable
class Prefilled(Protocol):
    """What a stream has, in addition, whose memory does not start empty."""

    @property
    def remembered(self) -> Remembered: ...


@runtime_checkable
class SearchesWithin(Protocol):
    """What a stream has in place of `search` if its tool depends on the session."""

    def search_within(self, query: str, *, question: Question, found: Sequence[Found]) -> Found | Awaitable[Found]:
        """Run the tool in a session.

        Args:
            query: written by the policy.
            question: of the session.
            found: what the tool returned earlier in the session, in order.

        Raises:
            ToolError: the tool itself broke.
        """
        ...


def remembered(stream: Stream) -> Remembered:
    """What memory holds before the first session of a stream."""
    return stream.remembered if isinstance(stream, Prefilled) else _NOTHING


def search(stream: Stream, query: str, *, question: Question, found: Sequence[Found]) -> Found | Awaitable[Found]:
    """Run a stream's tool in a session.

    Raises:
        ToolError: the tool itself broke.
    """
    if isinstance(stream, SearchesWithin):
        return stream.search_within(query, question=question, found=found)
    return stream.search(query)


_NOTHING = Remembered()


class Environment(Protocol):
    """A family of tasks with splits. Built once per process from the config."""

    @property
    def search_function(self) -> Function: ...  # how the tool is called here

    def stream(self, *, split: str, index: int) -> Stream:
        """Build the `index`-th stream of a split; its hidden facts are drawn from (seed, split, index).

        Raises:
            ConfigError: there is no such split.
        """
        ...

    def streams(self, split: str) -> int | None:
        """Number of different streams in the split; None if they never end, each with hidden facts of its own."""
        ...

    def texts(self) -> Sequence[str]:
        """Texts to train a tokenizer on: what the agent may read or write in the training split."""
        ...


@runtime_checkable
class KeepsApart(Protocol):
    """What an environment has, in addition, whose imitation may play other questions than PPO."""

    @property
    def taught_split(self) -> str: ...  # of imitation: "imitation" or "train"


def taught_split(environment: Environment) -> str:
    """The split whose streams imitation plays."""
    return environment.taught_split if isinstance(environment, KeepsApart) else "train"


@runtime_checkable
class Skips(Protocol):
    """What an environment has, in addition, that may leave out broken rows of its files."""

    @property
    def skipped(self) -> Sequence[str]: ...  # what is wrong with each, with file and line, of the files read so far


def skipped(environment: Environment) -> Sequence[str]:
    """What is wrong with each row of its files that an environment left out, of the files that it has read so far."""
    return environment.skipped if isinstance(environment, Skips) else ()
