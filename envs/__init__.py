"""Environments by name: the only place that lists them."""

from typing import Protocol

from agile_ray.agent.environment import Environment
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from envs import productqa, recurring, shop


class Build(Protocol):
    """Builds one environment from its section of the config."""

    def __call__(self, env: Env, /, *, seed: int) -> Environment: ...


ENVIRONMENTS: dict[str, Build] = {
    "shop": shop.build,
    "productqa": productqa.build,
    "recurring": recurring.build,
}


def build(env: Env, *, seed: int) -> Environment:
    """Build the environment that `env.name` names.

    Raises:
        ConfigError: no such environment, or its own complaint about the other keys.
    """
    if env.name not in ENVIRONMENTS:
        raise ConfigError(f"env.name: one of {', '.join(ENVIRONMENTS)}; found {env.name}")
    return ENVIRONMENTS[env.name](env, seed=seed)
