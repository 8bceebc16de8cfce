"""The tools of a server that speaks the Model Context Protocol, by its address.

Each call opens a connection of its own, since every call runs on an event loop of its own. The package `mcp` is an
optional extra: pip install "agile-ray[mcp]".
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from agile_ray.errors import ConfigError, described
from agile_ray.plugins.secrets import check_public, redacted
from envs.tools.tool import Arguments, Tool

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult

CONNECT_S = 10.0
"""Longest wait for a server to list its tools, seconds."""

Result = TypeVar("Result")


class MCPToolError(Exception):
    """The server says that its tool failed."""


def mcp_tools(address: str, *, token: str | None = None) -> list[Tool]:
    """The tools of a server.

    Args:
        address: such as http://127.0.0.1:8000/mcp.
        token: name of the environment variable that holds the server's bearer token; None: it needs none.

    Raises:
        ConfigError: the package mcp is missing, the address holds a secret, or the server does not answer.
    """
    try:
        check_public(address)
    except ValueError as error:
        raise ConfigError(f"tools: {error}") from error
    if not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"tools: a tool is a function, or the address of an MCP server, which begins with http:// or https://; "
            f"found the text {address.rpartition('@')[2]!r}"  # what is before may be a password
        )
    if token is not None and not os.environ.get(token):
        raise ConfigError(f"tools: {address}: the environment variable {token} must hold its token, found none; set it")
    try:
        import mcp  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'tools: {address}: an MCP server needs the package mcp, found none; pip install "agile-ray[mcp]"'
        ) from error

    async def listed() -> list[Tool]:
        async with asyncio.timeout(CONNECT_S), _client(address, token) as client:
            found = await client.list_tools()
        return [
            Tool(
                name=tool.name,
                description=" ".join((tool.description or "").split()),
                parameters={
                    name: str(schema.get("type", "any"))
                    for name, schema in tool.input_schema.get("properties", {}).items()
                },
                call=_caller(address, token, tool.name),
            )
            for tool in found.tools
        ]

    try:
        tools = _on_a_loop_of_its_own(listed)
    except BaseException as error:
        if not isinstance(error, Exception):
            raise
        raise ConfigError(
            f"tools: {address}: no MCP server lists its tools there within {CONNECT_S:g} s "
            f"({redacted(described(_cause(error)))}); start it first"
        ) from error
    if not tools:
        raise ConfigError(f"tools: {address}: an MCP server with at least one tool is needed, found none")
    return tools


def _client(address: str, token: str | None) -> "Client":
    from mcp import Client

    if token is None:
        return Client(address)
    from httpx2 import AsyncClient
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {os.environ.get(token, '')}"}
    return Client(streamable_http_client(address, http_client=AsyncClient(headers=headers, follow_redirects=True)))


def _caller(address: str, token: str | None, name: str) -> Callable[[Arguments], Awaitable[str]]:
    async def call(arguments: Arguments) -> str:
        try:
            async with _client(address, token) as client:
                result = await client.call_tool(name, dict(arguments))
        except BaseExceptionGroup as group:  # of the client's task group
            raise _cause(group) from group
        text = _text(result)
        if result.is_error:
            raise MCPToolError(text)
        return text

    return call


def _text(result: "CallToolResult") -> str:
    """The texts of a result; of other content, its type."""
    return "\n".join(part.text if part.type == "text" else f"[{part.type}]" for part in result.content)


def _cause(error: BaseException) -> BaseException:
    """The first error of a group, which says more than the group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _on_a_loop_of_its_own(function: Callable[[], Awaitable[Result]]) -> Result:
    """Run a coroutine to its end, also where an event loop runs already."""
    outcome: Future[Result] = Future()

    async def awaited() -> Result:
        return await function()

    def run() -> None:
        try:
            outcome.set_result(asyncio.run(awaited()))
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result()
