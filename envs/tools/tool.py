"""One tool: a name, a description, typed arguments, and what to call."""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from agile_ray.errors import ConfigError

Arguments = Mapping[str, object]


class ToolArgumentsError(Exception):
    """The arguments of a call are not those of the tool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool."""

    name: str
    description: str  # one line
    parameters: Mapping[str, str]  # name -> type, as JSON schema calls it
    call: Callable[[Arguments], Awaitable[object]]  # raises ToolArgumentsError, or anything if it breaks

    @property
    def line(self) -> str:
        """The tool in one line, for the policy to read."""
        parameters = " , ".join(f"{name} : {kind}" for name, kind in self.parameters.items())
        return f"{self.name} ( {parameters} ) {self.description}"


def call(name: str, /, **arguments: object) -> str:
    """A call as the policy writes it, for `Question.query`."""
    return f"{name} {json.dumps(arguments, ensure_ascii=False)}"


def function_tool(function: Callable[..., object]) -> Tool:
    """Make a tool of a function with typed arguments and a docstring, async or not.

    Raises:
        ConfigError: it has no docstring, or an argument without a type.
    """
    name = getattr(function, "__name__", repr(function))
    bare = [
        argument.name
        for argument in inspect.signature(function).parameters.values()
        if argument.annotation is inspect.Parameter.empty
        or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    ]
    if bare:
        raise ConfigError(f"tool {name}: every argument has a name and a type, found {bare[0]} without")
    if not (described_as := inspect.getdoc(function)):
        raise ConfigError(f"tool {name}: its docstring tells the policy what it does, found none; write one")
    checked = TypeAdapter(cast(type[object], function))
    properties = checked.json_schema().get("properties", {})

    async def run(arguments: Arguments) -> object:
        try:
            result = checked.validate_python(ArgsKwargs((), dict(arguments)))
        except ValidationError as error:
            raise ToolArgumentsError(_first(error)) from error
        return await result if inspect.isawaitable(result) else result

    return Tool(
        name=name,
        description=described_as.splitlines()[0],
        parameters={argument: str(schema.get("type", "any")) for argument, schema in properties.items()},
        call=run,
    )


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{' '.join(str(part) for part in problem['loc'])} : {problem['msg']}"
