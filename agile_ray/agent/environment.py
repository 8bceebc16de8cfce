"""What an environment provides: streams of questions, each stream with a tool and a judge.

Environments read and return text, never tokens. They are deterministic: playing the same stream twice gives the same
questions, results and judgements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agile_ray.agent.functions import Function


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One session's question."""

    id: str  # unique within its stream
    product: str  # QA pairs are stored under it and found only under it
    kind: str  # for reports; not shown to the policy
    topic: str  # one of few; `fitted` credit estimates the value of a memory entry per topic
    text: str  # the user's words; also the query for memory
    shown: str  # what [GetQuestion] appends after the status line: schema, product, question
    item: str  # the hidden fact that the answer depends on: equal items have equal answers
    answer: str  # gold short answer
    advice: str  # what the gold expert says: the gold long answer, or the short one
    knowledge: str  # what can be learned beyond this product; "" if nothing
    query: str  # gold query, if the tool answers the question; else ""
    guess: str  # the best answer without knowing the item
    guess_probability: float  # probability that `guess` is right, in [0, 1]; only oracles may use it
    guess_drawn: bool = False  # the answer was drawn with it, whatever the policy may see: a right guess is luck


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the tool returned."""

    text: str  # what the policy reads, an error message included
    rows: tuple[str, ...]  # ids found; submitted if the policy predicts nothing afterwards
    bad_query: bool  # the tool could not run the query; the text says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the policy submits: its own words, the expert's answer, or the rows that the tool returned."""

    text: str
    rows: tuple[str, ...] | None  # None: the text is judged
    advised: bool = False  # the text is the expert's answer


class Stream(Protocol):
    """The task of one episode: questions in order, with their tool and judge."""

    @property
    def id(self) -> str: ...  # names split, category and seed, so it is unique

    @property
    def questions(self) -> Sequence[Question]: ...

    def search(self, query: str) -> Found:
        """Run the tool on a query that the policy wrote. May block, and runs in a thread, as `judge` does.

        Raises:
            ToolError: the tool itself broke. For a query that it can't run, return a `Found` with `bad_query`.
        """
        ...

    def judge(self, question: Question, submission: Submission) -> bool:
        """Whether the submission is right."""
        ...


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
