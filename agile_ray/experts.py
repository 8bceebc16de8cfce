"""Chooses the expert by configuration."""

from typing import cast

from agile_ray.agent.expert import Expert, GoldExpert
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.plugins.resolver import built, resolve
from agile_ray.replay.expert import RecordedExpert

NEEDED = ("source", "reliability", "advise")
"""What an expert has."""


def build_expert(env: Env) -> Expert:
    """Build the expert that `env.expert` chooses. One that lies elsewhere is called as `build(env)`.

    Raises:
        ConfigError: no expert has this name, it is none, or the recorded run holds no segments or another version's.
    """
    if env.recorded is not None:
        return RecordedExpert(env.recorded)
    own = {"gold": _gold}
    build = resolve(env.expert, key="env.expert", kind="experts", built_in=own)
    if not callable(build):
        raise ConfigError(f"env.expert: {env.expert} must be a function build(env), found {build!r}")
    expert = built(lambda: build(env), name=env.expert, key="env.expert", built_in=own)
    missing = [name for name in NEEDED if not hasattr(expert, name)]
    if missing:
        raise ConfigError(
            f"env.expert: {env.expert} must build an expert with {', '.join(NEEDED)}, found {expert!r} without "
            f"{', '.join(missing)}"
        )
    return cast(Expert, expert)


def _gold(env: Env) -> Expert:
    del env
    return GoldExpert()
