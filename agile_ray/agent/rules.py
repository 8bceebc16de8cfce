"""What all lanes of a run share."""

from dataclasses import dataclass

from agile_ray.agent.expert import Expert
from agile_ray.agent.functions import Function
from agile_ray.agent.memory import Embedder
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.config import Agent
from agile_ray.config import Memory as MemoryConfig
from agile_ray.prices import Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The parts and settings that every lane plays with."""

    search_function: Function  # how the environment's tool is called
    tokenizer: Tokenizer
    embedder: Embedder
    expert: Expert
    agent: Agent
    memory: MemoryConfig
    tool_s: float  # deadline of one query, seconds; the environment enforces it
    prices: Prices  # of advice
    worded: frozenset[Function] = frozenset()  # functions that ask in words, up to the end token
