"""Whole streams, played by a scripted policy."""

from collections.abc import Iterable
from dataclasses import replace

from agile_ray.agent.environment import Environment
from agile_ray.agent.expert import Expert, GoldExpert
from agile_ray.agent.memory import HashedEmbedder
from agile_ray.agent.policy import Policy
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent
from agile_ray.config import Memory as MemoryConfig
from agile_ray.evaluation.plays import Play
from agile_ray.prices import Prices
from agile_ray.scripted.references import play_sessions
from agile_ray.types import Session


def play_streams(
    policy: Policy, environment: Environment, *, split: str, indices: Iterable[int], rules: Rules, price: int
) -> list[Session]:
    """Play whole streams, one after the other, without engine or Ray; the same call gives the same sessions."""
    lengths = {index: len(environment.stream(split=split, index=index).questions) for index in indices}
    chosen = [Play(index=index, sessions=length) for index, length in lengths.items()]
    return play_sessions(
        policy, environment, split=split, plays=chosen, rules=replace(rules, prices=Prices(amounts=(price,)))
    )


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
