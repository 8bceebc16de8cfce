"""Gives an environment tools; see toolbox.py for what the policy writes and reads."""

from collections.abc import Callable

from agile_ray.agent.environment import Environment
from envs.tools.equipped import Equipped
from envs.tools.mcp_server import mcp_tools
from envs.tools.tool import Tool, call, function_tool
from envs.tools.toolbox import CHARACTERS, Toolbox

__all__ = ["Tool", "call", "mcp_tools", "with_tools"]


def with_tools(
    environment: Environment,
    *tools: Callable[..., object] | Tool | str,
    deadline_s: float,
    characters: int = CHARACTERS,
) -> Equipped:
    """An environment whose agent calls these tools, in place of the environment's own tool.

    Args:
        environment: whose questions are asked; `Question.query` is a call such as `call("calculator", expression="1")`.
        tools: functions, or addresses of MCP servers, all of whose tools are offered.
        deadline_s: longest run of one call, seconds; `env.tool_s`.
        characters: of a result that the policy reads.

    Raises:
        ConfigError: a function can't be a tool, two have the same name, or a server does not answer.
    """
    found: list[Tool] = []
    for tool in tools:
        if isinstance(tool, str):
            found += mcp_tools(tool)
        else:
            found.append(tool if isinstance(tool, Tool) else function_tool(tool))
    return Equipped(environment, Toolbox(found, deadline_s=deadline_s, characters=characters))
