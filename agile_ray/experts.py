"""Chooses the expert by configuration."""

from typing import cast

from agile_ray.agent.expert import Expert, GoldExpert
from agile_ray.config import INBOX, Env
from agile_ray.errors import ConfigError
from agile_ray.inbox.client import DEADLINE_S, InboxExpert
from agile_ray.inbox.recorded import RecordedInbox
from agile_ray.plugins.resolver import resolve
from agile_ray.replay.expert import RecordedExpert

NEEDED = ("source", "reliability", "advise")
"""What an expert has."""


def build_expert(env: Env) -> Expert:
    """Build the expert that `env.expert` chooses. One that lies elsewhere is called as `build(env)`.

    Raises:
        ConfigError: no expert has this name, it is none, or the recorded run holds no segments or another version's.
    """
    if env.recorded is not None:
        return RecordedInbox(env.recorded) if env.recorded.is_file() else RecordedExpert(env.recorded)
    if env.expert.startswith(INBOX):
        url, _, deadline_s = env.expert.removeprefix(INBOX).partition("#")
        return InboxExpert(url, deadline_s=float(deadline_s or DEADLINE_S))
    build = resolve(env.expert, key="env.expert", kind="experts", built_in={"gold": _gold})
    if not callable(build):
        raise ConfigError(f"env.expert: {env.expert} must be a function build(env), found {build!r}")
    expert = build(env)
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
