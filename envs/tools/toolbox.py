"""Tools of a task: async Python functions, and servers that speak MCP.

    [CallTool] calculator {"expression": "3 * 4"} <end>      the policy writes a name, and arguments in JSON
    12                                                       and reads what the tool returns

What the policy wrote is decoded only to make the call. The reply is plain text when it is encoded, so it never becomes
a function token. Whatever a tool does, its call ends in time with a text of limited length, and the session goes on:

    reply                                                       remark of the session
    the result, cut to the limit                                tool_cut, if it was longer
    error : there is no tool ..., the arguments are wrong       bad_query
    error : calculator : ZeroDivisionError: ...                 bad_query, tool_crashed
    error : calculator took longer than 2 s                     bad_query, tool_late

A tool that ends its own process takes the rollout actor with it; run such a tool as an MCP server.
"""

import asyncio
import difflib
import json
import re
import threading
from collections import Counter
from collections.abc import Sequence

from agile_ray.agent.environment import Found
from agile_ray.agent.threads import in_thread
from agile_ray.errors import ConfigError, described
from envs.tools.tool import Arguments, Tool, ToolArgumentsError

CHARACTERS = 400
"""Of a result that the policy reads, unless the task says otherwise: about 100 tokens."""
GRACE_S = 0.5
"""How much later than its own deadline a call is given up that does not heed it."""
HANGING = 8
"""Calls of one tool that hang, each in a thread of its own, before further ones are refused."""
CALL = re.compile(r"\s*([\w.-]+)\s*(\{.*\})?\s*", re.DOTALL)
"""What the policy writes: a name, and an object in JSON."""


class Toolbox:
    """The tools of a task. May be called from several threads."""

    def __init__(self, tools: Sequence[Tool], *, deadline_s: float, characters: int = CHARACTERS) -> None:
        """Combine tools.

        Args:
            tools: with different names; at least one.
            deadline_s: longest run of one call, seconds.
            characters: of a result that the policy reads.

        Raises:
            ConfigError: two have the same name, or there is none.
        """
        twice = [name for name, times in Counter(tool.name for tool in tools).items() if times > 1]
        if twice or not tools:
            raise ConfigError(f"tools: each has a name of its own, and there is at least one; found {twice or 'none'}")
        self._tools = {tool.name: tool for tool in tools}
        self._deadline_s = deadline_s
        self._characters = characters
        self._hanging: Counter[str] = Counter()  # calls that were given up and have not ended, by tool
        self._lock = threading.Lock()

    @property
    def note(self) -> str:
        """What the policy reads about the tools, below its question."""
        return "\n".join(f"tool : {tool.line}" for tool in self._tools.values())

    async def call(self, written: str) -> Found:
        """Run a call that the policy wrote."""
        parsed = CALL.fullmatch(written)
        if parsed is None:
            return _refused("a call is a name and arguments in JSON")
        name = parsed[1]
        if name not in self._tools:
            near = difflib.get_close_matches(name, self._tools, n=1) or sorted(self._tools)
            return _refused(f"there is no tool {name[:40]} , use {' or '.join(near)}")
        try:
            arguments = json.loads(parsed[2] or "{}")
        except (ValueError, RecursionError):
            return _refused(f"{name} : the arguments are no JSON")
        if self._hanging[name] >= HANGING:
            return _refused(f"{name} is out of order", remark="tool_late")
        return await self._run(self._tools[name], arguments)

    async def _run(self, tool: Tool, arguments: Arguments) -> Found:
        given_up = [False]

        def run() -> Found:
            try:
                return asyncio.run(self._limited(tool, arguments))
            finally:
                with self._lock:
                    self._hanging[tool.name] -= given_up[0]

        try:
            return await in_thread(run, deadline_s=self._deadline_s + GRACE_S)
        except TimeoutError:
            with self._lock:
                given_up[0] = True
                self._hanging[tool.name] += 1
            return self._late(tool)

    async def _limited(self, tool: Tool, arguments: Arguments) -> Found:
        deadline = asyncio.timeout(self._deadline_s)
        try:
            async with deadline:
                result = await tool.call(arguments)
            text = result if isinstance(result, str) else json.dumps(result, default=str, ensure_ascii=False)
        except ToolArgumentsError as error:
            return _refused(f"{tool.name} : {str(error)[: self._characters]}")
        except BaseException as error:  # noqa: BLE001  a tool may raise anything, such as SystemExit
            if deadline.expired():
                return self._late(tool)
            return _refused(f"{tool.name} : {described(error)[: self._characters]}", remark="tool_crashed")
        return self._shown(text)

    def _late(self, tool: Tool) -> Found:
        return _refused(f"{tool.name} took longer than {self._deadline_s:g} s", remark="tool_late")

    def _shown(self, text: str) -> Found:
        if len(text) <= self._characters:
            return Found(text=_text(text), rows=None, bad_query=False)
        cut = f"{text[: self._characters]} ... ( {len(text)} characters )"
        return Found(text=_text(cut), rows=None, bad_query=False, remark="tool_cut")


def _text(text: str) -> str:
    """A text that every tokenizer takes: half a surrogate pair is none."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _refused(reason: str, *, remark: str = "") -> Found:
    return Found(text=_text(f"error : {reason}"), rows=None, bad_query=True, remark=remark)
