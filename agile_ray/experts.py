"""Chooses the expert by configuration."""

from agile_ray.agent.expert import Expert, GoldExpert
from agile_ray.config import Env
from agile_ray.replay.expert import RecordedExpert


def build_expert(env: Env) -> Expert:
    """Build the expert that `env.recorded` chooses: a past run's receipts, else the gold answers.

    Raises:
        ConfigError: `env.recorded` holds no segments, or another version wrote them.
    """
    return GoldExpert() if env.recorded is None else RecordedExpert(env.recorded)
