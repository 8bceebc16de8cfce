"""What an environment offers the agent: streams of questions with a tool, a judge and a gold answer.

Environments speak text and never see a token. Everything here is deterministic: playing the same stream twice
gives the same questions, rows and judgements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agile_ray.agent.functions import Function


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One session's question."""

    id: str  # unique within its stream
    product: str  # QA pairs are remembered under it, and found only under it
    kind: str  # for reports; the policy reads it, if at all, from the text
    topic: str  # one of few: `fitted` credit learns for each what remembering an answer is worth
    text: str  # what the user says; the query for memory
    shown: str  # all that [GetQuestion] appends, beside the status line: schema, product, question
    item: str  # the hidden thing that the answer rests on: equal items have equal answers
    answer: str  # gold short answer
    advice: str  # what an infallible expert says: the gold long answer, or the short one
    knowledge: str  # what there is to learn beyond this product; "" if nothing
    query: str  # gold query where the tool answers the question; "" elsewhere
    guess: str  # the best answer without knowing the item's value
    guess_chance: float  # chance that `guess` is right, in [0, 1]; what an oracle may use


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a tool answered."""

    text: str  # what the policy reads, an error message included
    rows: tuple[str, ...]  # ids found; what is submitted if the policy predicts nothing after
    bad_query: bool  # the tool could not run it; the text says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the policy submits: words that it wrote or was told, or the rows that its tool returned."""

    text: str
    rows: tuple[str, ...] | None  # None: judge the text
    advised: bool = False  # the text is the expert's, word for word


class Stream(Protocol):
    """One episode's task: questions in order, and what answers them."""

    @property
    def id(self) -> str: ...  # names split, category and seed, so that two different streams never share it

    @property
    def questions(self) -> Sequence[Question]: ...

    def search(self, query: str) -> Found:
        """Run the tool on what the policy wrote.

        Raises:
            ToolError: the tool itself broke. A query it can't run is a `Found` with `bad_query`.
        """
        ...

    def judge(self, question: Question, submission: Submission) -> bool: ...


class Environment(Protocol):
    """A task family with splits. Built once per process from the config."""

    @property
    def search_function(self) -> Function: ...  # how the tool is called here

    def stream(self, *, split: str, index: int) -> Stream:
        """The `index`-th stream of a split; what is hidden in it is drawn from (seed, split, index).

        Raises:
            ConfigError: no such split.
        """
        ...

    def streams(self, split: str) -> int | None:
        """How many different streams the split has; None if it never ends."""
        ...

    def texts(self) -> Sequence[str]:
        """Texts to train a tokenizer on: everything the agent may read or write, from the training split."""
        ...
