"""Policies that decide by script whether to ask, and let another policy, such as an engine, answer.

    ask_unless_own_search   asks wherever the tool can't answer; searches with the other policy's own query
    own_non_adaptive        asks in the first K sessions of a stream
    own_answer              never asks, and may not: a lane of its own reads the memory that `always_ask` has grown, so
                            the answers of all policies are compared on one memory

Where a script does not ask, it writes [SearchProduct] or [PredictAnswer] after memory was read, and the other policy
goes on from there to the end of the session. No logits are masked. Where a script asks, it plays the session to its
end, with the gold reflection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from agile_ray.agent.environment import Environment, Stream
from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, Policy, SessionView, Writer
from agile_ray.agent.rules import Rules
from agile_ray.scripted.reader import Asker, Scripted, best_guess, chooses, has_tool
from agile_ray.scripted.references import REFERENCES, Habits, reference

GuideName = Literal["ask_unless_own_search", "own_non_adaptive", "own_answer"]
GUIDES: tuple[GuideName, ...] = get_args(GuideName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """When the script asks."""

    name: GuideName
    first: int = 0  # K of `own_non_adaptive`

    @property
    def asks(self) -> Asker:
        """The rule."""
        rules = {"ask_unless_own_search": "ask_unless_search", "own_non_adaptive": "non_adaptive"}
        return REFERENCES[rules.get(self.name, "never_ask")](Habits(first=self.first))

    def policy(self, environment: Environment, other: Writer) -> Policy:
        """Guide another policy."""
        return Guided(self.asks, other, search_function=environment.search_function)

    def measured(self, lane: Lane, rules: Rules) -> Lane:
        """The lane whose sessions count, beside the one that keeps the memory; mostly that one itself."""
        if self.name != "own_answer":
            return lane
        bar = tuple(dict.fromkeys((*rules.agent.bar, "SeekAdvice")))
        agent = rules.agent.model_copy(update={"bar": bar})
        return Lane(lane.stream, replace(rules, agent=agent))


async def grow(lane: Lane, measured: Lane, environment: Environment) -> None:
    """Let a script play the session that a lane of its own has just played, so that the common memory goes on.

    Args:
        lane: keeps the memory.
        measured: has just played the lane's next session.
        environment: of both.
    """
    if measured is not lane:
        await lane.play(reference("always_ask", environment, Habits()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A prompt that ends with what the script wrote."""

    context_ids: Sequence[int]
    room: int
    stream: Stream
    position: int


class Guided:
    """Asks by a rule; where it does not ask, it begins the answer, and another policy goes on."""

    def __init__(self, asks: Asker, other: Writer, *, search_function: Function) -> None:
        """Combine a rule with a policy.

        Args:
            asks: when the script asks.
            other: answers.
            search_function: how the environment's tool is called.
        """
        self._asks = asks
        self._other = other
        self._search_function = search_function
        self._script = Scripted(asks, search_function=search_function, guess=best_guess)

    async def write(self, view: SessionView) -> Completion:
        opens = view.last is None or (view.last is Function.GET_QUESTION and not chooses(view))
        if opens or view.advised or (chooses(view) and self._may_ask(view)):
            return await self._script.write(view)
        if not chooses(view):
            return await self._other.write(view)
        begins = self._search_function if has_tool(view) else Function.PREDICT_ANSWER
        return await self._continued(view, view.tokenizer.function_id(begins))

    def _may_ask(self, view: SessionView) -> bool:
        return bool(view.offers) and self._asks(view)

    async def _continued(self, view: SessionView, begun: int) -> Completion:
        """A turn that begins with this token; the script's token has no logprob."""
        ids = np.array([begun], dtype=np.int32)
        zeros = np.zeros(1, dtype=np.float32)
        if view.room == 1:
            return Completion(ids=ids, logprobs=zeros, versions=np.zeros(1, dtype=np.int32))
        prompt = _Begun(
            context_ids=[*view.context_ids, begun], room=view.room - 1, stream=view.stream, position=view.position
        )
        rest = await self._other.write(prompt)
        return Completion(
            ids=np.concatenate([ids, rest.ids]),
            logprobs=np.concatenate([zeros, rest.logprobs]),
            versions=np.concatenate([rest.versions[:1], rest.versions]),
        )
