"""Plays a prompted policy: no Ray and no engine, but a chat model behind an endpoint. Streams play at the same time."""

import asyncio
from collections.abc import Sequence

from agile_ray.agent.environment import Environment
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Policy
from agile_ray.agent.rules import Rules
from agile_ray.evaluation.plays import Play
from agile_ray.types import Session
from envs.endpoints.chat import Chat, Usage
from rollout.prompted.policies import Prompt, PromptedAgent

REQUEST_S = 120.0
"""Deadline of one request, its retries included."""


def used(usage: Usage, prices: tuple[float, float] | None, *, of: str = "endpoint") -> str:
    """What the endpoint was used for, in a sentence.

    Args:
        usage: of the endpoint.
        prices: of a million prompt tokens and of a million completion tokens; None: not known.
        of: its name.
    """
    cost = "" if prices is None else f", cost {usage.cost(prices):.4f}"
    return (
        f"{of}: {usage.requests:,} requests, {usage.retries:,} retries, {usage.failed:,} failed; "
        f"{usage.prompt_tokens:,} prompt tokens, {usage.completion_tokens:,} completion tokens{cost}"
    )


def prompted(name: str, chat: Chat, environment: Environment) -> Policy:
    """Build the policy `prompt` or `prompted_agent`."""
    return Prompt(chat) if name == "prompt" else PromptedAgent(chat, search_function=environment.search_function)


def play_prompted(
    policy: Policy, environment: Environment, *, split: str, plays: Sequence[Play], rules: Rules
) -> list[Session]:
    """Play the streams of an evaluation, each in order; `Chat` bounds how many requests are in flight.

    Returns:
        Stream by stream.

    Raises:
        ConfigError: the endpoint refuses the key or has no such model.
    """

    async def stream(chosen: Play) -> list[Session]:
        lane = Lane(environment.stream(split=split, index=chosen.index), rules, sessions=chosen.sessions)
        return [await lane.play(policy) for _ in range(chosen.sessions)]

    async def play() -> list[Session]:
        tasks = [asyncio.ensure_future(stream(chosen)) for chosen in plays]
        try:
            return [session for sessions in await asyncio.gather(*tasks) for session in sessions]
        finally:
            for task in tasks:
                task.cancel()

    return asyncio.run(play())
