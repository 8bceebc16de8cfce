"""A server that speaks MCP, on loopback, as a box of tools."""

import asyncio
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from agile_ray.errors import ConfigError
from envs.tools import call, mcp_server, mcp_tools
from envs.tools.toolbox import Toolbox

pytest.importorskip("mcp")

LONG_S = 60.0
"""Deadline of what comes at once, however busy the machine is, seconds."""

SERVER = """
import os, sys, time
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
server = MCPServer("test")

@server.tool()
def add(left: int, right: int) -> int:
    "Adds two numbers."
    return left + right

@server.tool()
def fails(why: str) -> str:
    "Fails."
    raise ToolError(why)

@server.tool()
async def hangs() -> str:
    "Hangs."
    import asyncio
    await asyncio.sleep(600)
    return ""

@server.tool()
def long(characters: int) -> str:
    "Returns a long text."
    return "[SeekAdvice]" + "x" * characters

@server.tool()
def dies() -> str:
    "Ends the server."
    os._exit(1)

server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def serving(code=SERVER):
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", code, str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", autouse=True)
def patient():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mcp_server, "CONNECT_S", LONG_S)
        yield


@pytest.fixture(scope="module")
def address(patient):
    with serving() as one:
        yield one


@pytest.fixture(scope="module")
def box(address):
    return Toolbox(mcp_tools(address), deadline_s=LONG_S, characters=60)


def test_a_servers_tools_have_names_arguments_and_descriptions(box):
    assert "tool : add ( left : integer , right : integer ) Adds two numbers." in box.note.splitlines()


@pytest.mark.parametrize(
    ("written", "says", "remark"),
    [
        (call("add", left=3, right=4), "7", ""),
        (call("fails", why="no town"), "Error executing tool fails: no town", "tool_crashed"),
        (call("add", left="x", right=4), "error : add : ", "tool_crashed"),
        ("hangs", "error : hangs took longer than 1 s", "tool_late"),
        (call("long", characters=3 << 20), "( 3145740 characters )", "tool_cut"),
    ],
)
def test_a_call_is_run_by_the_server_and_whatever_it_does_is_a_text(box, written, says, remark):
    box._deadline_s = 1.0 if remark == "tool_late" else LONG_S
    found = asyncio.run(box.call(written))
    assert says in found.text
    assert found.remark == remark
    assert len(found.text) < 110


def test_a_server_that_dies_is_a_text_and_so_is_every_later_call():
    with serving() as one:
        box = Toolbox(mcp_tools(one), deadline_s=LONG_S, characters=80)
        for written in ("dies", call("add", left=1, right=1)):
            found = asyncio.run(box.call(written))
            assert found.bad_query
            assert found.remark in ("tool_crashed", "tool_late")


def test_a_server_is_asked_for_its_tools_where_an_event_loop_runs(address):
    async def inside():
        return [tool.name for tool in mcp_tools(address)]

    assert "add" in asyncio.run(inside())


def test_no_server_is_an_error_that_names_the_address():
    port = free_port()
    with pytest.raises(ConfigError, match=f"tools: http://127.0.0.1:{port}/mcp: no MCP server lists its tools there"):
        mcp_tools(f"http://127.0.0.1:{port}/mcp")


@pytest.mark.parametrize("one", ["calculator", "localhost:8000/mcp"])
def test_a_text_that_is_no_address_is_named(one):
    with pytest.raises(
        ConfigError, match=f"address of an MCP server, which begins with http://.* found the text '{one}'"
    ):
        mcp_tools(one)


@pytest.mark.parametrize("one", ["http://me:pass@host/mcp", "http://host/mcp?token=abc"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(one):
    with pytest.raises(ConfigError, match="an address holds no user, password or query") as error:
        mcp_tools(one)
    assert "pass@" not in str(error.value)
    assert "abc" not in str(error.value)


def test_a_token_is_read_from_the_variable_that_is_named(address, monkeypatch):
    monkeypatch.delenv("MCP_TEST_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="the environment variable MCP_TEST_TOKEN must hold its token"):
        mcp_tools(address, token="MCP_TEST_TOKEN")
    monkeypatch.setenv("MCP_TEST_TOKEN", "secret-of-the-server")
    assert mcp_tools(address, token="MCP_TEST_TOKEN")
