"""An environment with tools in place of its own tool."""

from collections.abc import Awaitable, Sequence
from dataclasses import replace

from agile_ray.agent.environment import Environment, Found, Question, Stream
from agile_ray.agent.functions import Function
from envs.tools.toolbox import Toolbox
from envs.wrappers.same import SameEnvironment, SameStream


class EquippedStream(SameStream):
    """A stream whose questions are shown with the tools, one in a line."""

    def __init__(self, stream: Stream, tools: Toolbox) -> None:
        super().__init__(stream)
        self.questions = [replace(one, shown=f"{one.shown}\n{tools.note}") for one in stream.questions]
        self._tools = tools

    def search(self, query: str) -> Awaitable[Found]:
        """Run a call."""
        return self._tools.call(query)

    def search_within(self, query: str, *, question: Question, found: Sequence[Found]) -> Awaitable[Found]:
        """Run a call in a session."""
        del question, found  # the call's arguments say all
        return self._tools.call(query)


class Equipped(SameEnvironment):
    """An environment with tools."""

    def __init__(self, environment: Environment, tools: Toolbox) -> None:
        super().__init__(environment)
        self._tools = tools

    @property
    def search_function(self) -> Function:
        """How the tools are called."""
        return Function.CALL_TOOL

    def stream(self, *, split: str, index: int) -> Stream:
        """Build the `index`-th stream of a split.

        Raises:
            ConfigError: there is no such split, or no such stream in it.
        """
        return EquippedStream(super().stream(split=split, index=index), self._tools)

    def texts(self) -> Sequence[str]:
        """Texts to train a tokenizer on: the environment's, the tools, and the calls of the first training stream."""
        calls = (one.query for one in super().stream(split="train", index=0).questions if one.query)
        return (*super().texts(), f"{self._tools.note}\n", *(f" {call}" for call in calls))
