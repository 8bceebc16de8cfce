"""The protocol of policies: an engine, or a script, writes the tokens of a turn."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agile_ray.agent.environment import Found, Question, Stream
from agile_ray.agent.expert import Advice
from agile_ray.agent.functions import Function
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.types import Float32, Int32, MemoryUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a policy wrote in one turn: at least one token, up to a stop function, the end token or the token budget."""

    ids: Int32  # [C]
    logprobs: Float32  # [C], nats; 0.0 from a script
    versions: Int32  # [C]
    ask_probability: float = math.nan  # as in Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one expert offers in a session."""

    price: int  # of one ask, as the agent is told it, thousandths
    reliability: float  # share of its advice that is right; only oracles may use it


class Prompt(Protocol):
    """What a turn continues: all that an engine needs."""

    @property
    def context_ids(self) -> Sequence[int]: ...

    @property
    def room(self) -> int: ...  # tokens that may still be written in this turn, at least 1

    @property
    def stream(self) -> Stream: ...

    @property
    def position(self) -> int: ...


class SessionView(Prompt, Protocol):
    """What a policy may look at while a session is played."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def question(self) -> Question: ...

    @property
    def sessions(self) -> int: ...  # of the stream that are played, from its start

    @property
    def price(self) -> int: ...  # of one [SeekAdvice], thousandths

    @property
    def offers(self) -> Mapping[Function, Offer]: ...  # by the function that asks; without barred ones

    @property
    def barred(self) -> Collection[Function]: ...  # functions that the agent may not use

    @property
    def worded(self) -> Collection[Function]: ...  # functions that ask in words, up to the end token

    @property
    def last(self) -> Function | None: ...  # the function that ran last

    @property
    def reads(self) -> Sequence[MemoryUse]: ...  # entries that [RetrieveMemory] returned

    @property
    def found(self) -> Found | None: ...  # what the tool returned last

    @property
    def advised(self) -> bool: ...  # the expert has answered

    def told(self, position: int) -> Advice | None:
        """What the expert said to the session at a position of this stream; None: that session did not ask."""
        ...


class Policy(Protocol):
    """Writes one turn."""

    async def write(self, view: SessionView) -> Completion:
        """Write the next turn; at most `view.room` tokens."""
        ...


class Writer(Protocol):
    """A policy that needs no more than the prompt."""

    async def write(self, view: Prompt) -> Completion:
        """Write the next turn; at most `view.room` tokens."""
        ...
