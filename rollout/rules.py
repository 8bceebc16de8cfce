"""Builds what the lanes of a run share from its configuration."""

from pathlib import Path

from agile_ray.agent.environment import Environment
from agile_ray.agent.lane import Rules
from agile_ray.agent.memory import Embedder, HashedEmbedder
from agile_ray.config import RunConfig
from agile_ray.experts import build_expert
from rollout.tokenizer import HFTokenizer


def build_rules(config: RunConfig, environment: Environment, *, model: Path) -> Rules:
    """Rules of lanes that are played by a model, or by a script in a model's vocabulary.

    Args:
        model: folder of the tokenizer.

    Raises:
        ConfigError: the tokenizer lacks function tokens, the embedder's package is not installed, or env.recorded holds
            no segments.
    """
    return Rules(
        search_function=environment.search_function,
        tokenizer=HFTokenizer(model),
        embedder=build_embedder(config.memory.embedder),
        expert=build_expert(config.env),
        agent=config.agent,
        memory=config.memory,
        price=config.env.price,
    )


def build_embedder(name: str) -> Embedder:
    """The embedder that `memory.embedder` names."""
    if name == "hashed":
        return HashedEmbedder()
    from rollout.embedder import MiniLMEmbedder

    return MiniLMEmbedder()
