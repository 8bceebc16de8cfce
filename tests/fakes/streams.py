"""Whole streams, played by a scripted policy."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from agile_ray.agent.environment import Environment
from agile_ray.agent.expert import Expert, GoldExpert
from agile_ray.agent.lane import Lane
from agile_ray.agent.memory import HashedEmbedder
from agile_ray.agent.policy import Policy
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent
from agile_ray.config import Memory as MemoryConfig
from agile_ray.prices import Prices
from agile_ray.types import Session


def play_streams(
    policy: Policy, environment: Environment, *, split: str, indices: Iterable[int], rules: Rules, price: int
) -> list[Session]:
    """Play whole streams, one after the other, as training does, with counterfactuals, but without engine or Ray."""
    priced = replace(rules, prices=Prices(amounts=(price,)))

    async def play() -> list[Session]:
        sessions: list[Session] = []
        for index in indices:
            lane = Lane(environment.stream(split=split, index=index), priced, imagines=True)
            while not lane.finished:
                sessions.append(await lane.play(policy))
        return sessions

    return asyncio.run(play())


def script_rules(
    environment: Environment,
    *,
    agent: Agent,
    memory: MemoryConfig,
    expert: Expert | None = None,
    tool_s: float = 2.0,
    price: int = 300,
) -> Rules:
    """Rules of lanes without a model: tokens are words, embeddings hashed n-grams, advice is gold unless given."""
    return Rules(
        search_function=environment.search_function,
        tokenizer=WordTokenizer(),
        embedder=HashedEmbedder(),
        expert=expert or GoldExpert(),
        agent=agent,
        memory=memory,
        tool_s=tool_s,
        prices=Prices(amounts=(price,)),
    )
