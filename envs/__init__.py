"""The registry of environments: the only module that lists them by name."""

from typing import Protocol

from agile_ray.agent.environment import Environment
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from envs import hotpotqa, medmcqa, productqa, recurring, shop
from envs.endpoints.llm_judge import Judged
from envs.splits import check_apart
from envs.stretches import Stretches


class Build(Protocol):
    """Builds one environment from the config's section `env`."""

    def __call__(self, env: Env, /, *, seed: int) -> Environment: ...


ENVIRONMENTS: dict[str, Build] = {
    "shop": shop.build,
    "productqa": productqa.build,
    "medmcqa": medmcqa.build,
    "hotpotqa": hotpotqa.build,
    "recurring": recurring.build,
    "recurring_long": recurring.build,
}


def build(env: Env, *, seed: int) -> Environment:
    """Build the environment that `env.name` selects, its streams cut to `env.stream_sessions`, its words judged by
    `env.judge`.

    Args:
        seed: root of everything that the environment draws.

    Raises:
        ConfigError: no environment has this name, two splits share a category, or the environment refuses another key
            of the section.
    """
    if env.name not in ENVIRONMENTS:
        raise ConfigError(f"env.name: one of {', '.join(ENVIRONMENTS)}; found {env.name}")
    check_apart(env.categories.items())
    environment = ENVIRONMENTS[env.name](env, seed=seed)
    if env.stream_sessions is not None:
        environment = Stretches(environment, sessions=env.stream_sessions)
    if env.judge is None:
        return environment
    url, _, model = env.judge.partition("#")
    return Judged(environment, url=url, model=model)
