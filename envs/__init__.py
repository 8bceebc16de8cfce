"""The registry of environments: the only module that lists them by name, and finds those that lie elsewhere."""

from typing import Protocol, cast

from agile_ray.agent.environment import Environment
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.plugins.resolver import built, resolve
from envs import hotpotqa, medmcqa, productqa, recurring, shop
from envs.dataset import dataset
from envs.dataset.judges import JUDGES, Judge
from envs.endpoints.llm_judge import LLMJudged
from envs.splits import check_apart
from envs.wrappers.judged import Judged
from envs.wrappers.stretches import Stretches


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
    "dataset": dataset.build,
}
NEEDED = ("search_function", "stream", "streams", "texts")
"""What an environment has."""


def build(env: Env, *, seed: int) -> Environment:
    """Build the environment that `env.name` selects, its streams cut to `env.stream_sessions`, its words judged by
    `env.judge`.

    A name elsewhere is called as the built-in ones are: `build(env, seed=seed)`.

    Args:
        seed: root of everything that the environment draws.

    Raises:
        ConfigError: no environment or judge has this name, two splits share a category, or the environment refuses
            another key of the section.
    """
    check_apart(env.categories.items())
    environment = _built(env, seed=seed)
    if env.stream_sessions is not None:
        environment = Stretches(environment, sessions=env.stream_sessions)
    if env.judge is None:
        return environment
    if "#" in env.judge:
        url, _, model = env.judge.partition("#")
        return LLMJudged(environment, url=url, model=model)
    judge = resolve(env.judge, key="env.judge", kind="judges", built_in=JUDGES)
    if not callable(judge):
        raise ConfigError(f"env.judge: {env.judge} must be a function of the question and the words, found {judge!r}")
    return Judged(environment, cast(Judge, judge))


def _built(env: Env, *, seed: int) -> Environment:
    build = resolve(env.name, key="env.name", kind="environments", built_in=ENVIRONMENTS)
    if not callable(build):
        raise ConfigError(f"env.name: {env.name} must be a function build(env, *, seed), found {build!r}")
    environment = built(lambda: build(env, seed=seed), name=env.name, key="env.name", built_in=ENVIRONMENTS)
    missing = [name for name in NEEDED if not hasattr(environment, name)]
    if missing:
        raise ConfigError(
            f"env.name: {env.name} must build an environment with {', '.join(NEEDED)}, found {environment!r} without "
            f"{', '.join(missing)}"
        )
    return cast(Environment, environment)
