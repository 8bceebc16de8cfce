"""A world small enough to read: questions about products, one tool, and a policy that writes prepared turns."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agile_ray.agent.environment import Found, Question, Submission
from agile_ray.agent.expert import Expert, GoldExpert
from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.memory import HashedEmbedder
from agile_ray.agent.policy import Completion, SessionView
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import Tokenizer, WordTokenizer
from agile_ray.config import Agent
from agile_ray.config import Memory as MemoryConfig
from agile_ray.errors import ToolError
from agile_ray.prices import Prices
from agile_ray.types import Ending, Hindsight, Session

END = "<end>"

SESSION = Session(
    stream="s",
    position=0,
    stream_length=1,
    question_id="q",
    kind="fact",
    topic="fact",
    price=300,
    turns=(),
    ending=Ending.DONE,
    error=None,
    answer=None,
    correct=False,
    receipts=(),
    reads=(),
    writes=(),
    remarks=(),
)
"""A session about nothing; tests set what matters to them with `changed`."""


def changed(one, /, **changes):
    """`dataclasses.replace`, which also takes the fields of a session's hindsight: `changed(SESSION, known=True)`."""
    if isinstance(one, Session):
        inner = {name: changes.pop(name) for name in Hindsight.__slots__ if name in changes}
        changes["hindsight"] = replace(changes.get("hindsight", one.hindsight), **inner)
    return replace(one, **changes)


def question(number: int, text: str, *, product: str = "p1", answer: str = "yes", knowledge: str = "") -> Question:
    """A question that the tool does not answer."""
    return Question(
        id=f"q{number}",
        product=product,
        kind="fact",
        topic="fact",
        text=text,
        shown=f"product {product} question {text}",
        item=f"{product} {text}",
        answer=answer,
        advice=answer,
        knowledge=knowledge,
        query="",
        guess="yes",
        guess_probability=0.5,
    )


class SmallStream:
    """Judges by equality; its tool knows one query."""

    id = "test/small/0"

    def __init__(self, *questions: Question, broken_tool: bool = False) -> None:
        self.questions = questions
        self.broken_tool = broken_tool

    def search(self, query: str) -> Found:
        if self.broken_tool:
            raise ToolError("shop.db: disk gone")
        if query == "SELECT all":
            return Found(text="rows : p1 p2", rows=("p1", "p2"), bad_query=False)
        return Found(text="error : syntax", rows=(), bad_query=True)

    def judge(self, question: Question, submission: Submission) -> bool:
        if submission.rows is not None:
            return "p1" in submission.rows
        return submission.text == question.answer


class Says:
    """A policy that writes prepared turns: function names are single tokens, END is the end token."""

    def __init__(self, *turns: str, version: int = 0) -> None:
        self.turns = list(turns)
        self.version = version

    async def write(self, view: SessionView) -> Completion:
        return completion(self.turns.pop(0), view.tokenizer, version=self.version)


def completion(text: str, tokenizer: Tokenizer, *, version: int = 0) -> Completion:
    """The completion that a turn of `Says` stands for."""
    ids: list[int] = []
    for word in text.split():
        if word == END:
            ids.append(tokenizer.eos_id)
        elif word in set(Function):
            ids.append(tokenizer.function_id(Function(word)))
        else:
            ids += tokenizer.encode(" " + word)
    return Completion(
        ids=np.array(ids, np.int32),
        logprobs=np.full(len(ids), -0.5, np.float32),
        versions=np.full(len(ids), version, np.int32),
    )


def rules(
    *,
    agent: Agent | None = None,
    expert: Expert | None = None,
    top_k: int = 1,
    tool_s: float = 2.0,
    price: int = 300,
) -> Rules:
    """Rules with word tokens and hashed embeddings."""
    return Rules(
        search_function=Function.SEARCH_PRODUCT,
        tokenizer=WordTokenizer(),
        embedder=HashedEmbedder(),
        expert=expert or GoldExpert(),
        agent=agent or Agent(),
        memory=MemoryConfig(top_k=top_k),
        tool_s=tool_s,
        prices=Prices(amounts=(price,)),
    )


def lane(*questions: Question, broken_tool: bool = False, with_rules: Rules | None = None, price: int = 300) -> Lane:
    """A lane at the start of a small stream."""
    stream = SmallStream(*questions, broken_tool=broken_tool)
    return Lane(stream, with_rules or rules(price=price), looks_ahead=True, imagines=True)


OPENING = ("[GetQuestion]", "[RetrieveMemory]")
PREDICTS = (*OPENING, "[PredictAnswer] yes [SubmitAnswer] [ClearContext]")
ASKS = (*OPENING, "[SeekAdvice]", "[Reflection] steel rusts [UpdateMemory] [SubmitAnswer] [ClearContext]")


def read(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of token ids."""
    return tokenizer.decode(list(ids))
