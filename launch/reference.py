"""The command-line reference, docs/commands.md: the help of every command, as the code has it.

python -m launch.reference > docs/commands.md
"""

from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from launch.main import app

WIDTH = 100
HEAD = """# Commands

The help of `agile-ray` and of each of its commands. `python -m launch.reference > docs/commands.md` writes this
page."""


def reference() -> str:
    """The page: one heading and one block of help per command."""
    return "\n\n".join([HEAD, *_sections(get_command(app), None, "agile-ray")]) + "\n"


def _sections(command: object, parent: typer.Context | None, name: str) -> Iterator[str]:
    assert isinstance(command, TyperCommand | TyperGroup)  # typer makes no others
    context = typer.Context(command, parent=parent, info_name=name, terminal_width=WIDTH, **command.context_settings)
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    yield "\n".join([f"## {context.command_path}", "", "```text", *lines, "```"])
    if isinstance(command, TyperGroup):
        for each, below in command.commands.items():
            yield from _sections(below, context, each)


if __name__ == "__main__":
    print(reference(), end="")
