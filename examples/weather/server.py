"""A server that speaks MCP: `python server.py PORT`."""

import sys

from mcp.server.mcpserver import MCPServer

DEGREES = {"oslo": 3, "lima": 19, "cairo": 31, "perth": 24, "delhi": 35, "quito": 14}
server = MCPServer("weather")


@server.tool()
def temperature(town: str) -> str:
    """The temperature of a town, in degrees."""
    return str(DEGREES[town])


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
