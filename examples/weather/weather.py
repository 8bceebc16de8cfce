"""Questions about the weather, whose tool is a server that speaks MCP."""

import os

from agile_ray.agent.environment import Environment
from agile_ray.config import Env
from envs.dataset import dataset
from envs.tools import with_tools

ADDRESS = "http://127.0.0.1:8765/mcp"


def build(env: Env, *, seed: int) -> Environment:
    address = os.environ.get("WEATHER", ADDRESS)
    return with_tools(dataset.build(env, seed=seed), address, deadline_s=env.tool_s)
