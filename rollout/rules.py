"""Builds what all lanes of a run share: the tokenizer, the embedder, the expert and the agent's rules."""

from pathlib import Path

from agile_ray.agent.environment import Environment
from agile_ray.agent.expert import COLLEAGUE
from agile_ray.agent.functions import ASKS, SEARCHES, Function
from agile_ray.agent.memory import Embedder, HashedEmbedder
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import Tokenizer, WordTokenizer
from agile_ray.config import Agent, Env, Memory
from agile_ray.errors import ConfigError
from agile_ray.expert_spec import ExpertSpec
from agile_ray.prices import Prices
from rollout.embedder import BatchedEmbedder
from rollout.experts import build_expert


def build_rules(
    environment: Environment, *, env: Env, agent: Agent, memory: Memory, model: Path | None, seed: int
) -> Rules:
    """Build the rules of lanes that a model plays, or a script by the same rules.

    Args:
        environment: built from `env`.
        env: its prices, expert and tool.
        agent: rules and budgets.
        memory: what the agent remembers.
        model: Hugging Face folder with the tokenizer; None: tokens are words, which only scripts can play.
        seed: root seed of the run.

    Raises:
        ConfigError: the tokenizer lacks function tokens, the embedder's package is not installed, `env.expert` can't be
            built, or `agent.bar` names another environment's tool.
    """
    tools = {function.value.strip("[]") for function in SEARCHES - {environment.search_function}}
    wrong = sorted(tools.intersection(agent.bar))
    if wrong:
        tool = environment.search_function.value.strip("[]")
        raise ConfigError(f"agent.bar: the tool of {env.name} is {tool}, found {wrong[0]}; write {tool}")
    return Rules(
        search_function=environment.search_function,
        tokenizer=WordTokenizer() if model is None else _read_tokenizer(model, environment.search_function, env=env),
        embedder=build_embedder(memory.embedder),
        expert=build_expert(env, deadline_s=agent.expert_s, seed=seed),
        agent=agent,
        memory=memory,
        tool_s=env.tool_s,
        prices=Prices.of(env, seed=seed),
        worded=worded(env.expert),
    )


def worded(expert: ExpertSpec) -> frozenset[Function]:
    """The functions that ask in words, of the expert and its colleague."""
    asked = {"": expert, COLLEAGUE: expert.colleague}
    return frozenset(function for function, to in ASKS.items() if (one := asked[to]) is not None and one.words)


def _read_tokenizer(model: Path, search: Function, *, env: Env) -> Tokenizer:
    from rollout.tokenizer import HFTokenizer  # which imports transformers

    tokenizer = HFTokenizer(model)
    if search not in tokenizer.functions:
        raise toolless(model, search)
    if env.expert.colleague is not None and Function.ASK_COLLEAGUE not in tokenizer.functions:
        raise ConfigError(
            f"model.path: the tokenizer of {model} lacks {Function.ASK_COLLEAGUE.value}, by which the colleague of "
            f"env.expert is asked; add it with: agile-ray model from {model} --colleague --output NEW"
        )
    return tokenizer


def toolless(model: Path, search: Function) -> ConfigError:
    """The error for a model whose tokenizer lacks the function by which the environment's tool is called."""
    return ConfigError(
        f"model.path: the tokenizer of {model} lacks {search.value}, by which the environment's tools are called; "
        f"add it with: agile-ray model from {model} --tools --output NEW"
    )


def check_embedder(name: str) -> None:
    """Refuse an embedder that can't be built; loads nothing.

    Raises:
        ConfigError: its package is not installed, or lacks a file.
    """
    if name == "minilm":
        from rollout.minilm import model_folder

        model_folder()


def build_embedder(name: str) -> Embedder:
    """Build the embedder that `memory.embedder` names.

    Raises:
        ConfigError: its package is not installed, or lacks a file.
    """
    if name == "hashed":
        return HashedEmbedder()
    from rollout.minilm import MiniLM

    return BatchedEmbedder(MiniLM())
