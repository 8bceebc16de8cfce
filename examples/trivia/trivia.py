"""Trivia from questions.csv, with a calculator."""

from agile_ray.agent.environment import Environment
from agile_ray.config import Env
from envs.dataset import dataset
from envs.tools import with_tools


async def calculator(left: int, sign: str, right: int) -> int:
    """Calculates left sign right, where sign is +, - or *."""
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


def build(env: Env, *, seed: int) -> Environment:
    return with_tools(dataset.build(env, seed=seed), calculator, deadline_s=env.tool_s)
