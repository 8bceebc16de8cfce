"""Reads and writes JSON files; what is read is validated."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from agile_ray.errors import ConfigError
from agile_ray.record.whole import write_whole

SHOWN_CHARACTERS = 60
"""Length to which an error message cuts the value that was found."""

Value = TypeVar("Value")


def read_json(path: Path, validate: Callable[[bytes], Value], *, expected: str) -> Value:
    """Read a JSON file.

    Args:
        path: a file that exists.
        validate: of pydantic, such as `TypeAdapter(Start).validate_json`.
        expected: what the file holds, for the error message, such as "a list of starts".

    Raises:
        ConfigError: the file does not hold what is expected; names the first wrong value.
    """
    return parse_json(path.read_bytes(), validate, where=str(path), expected=expected)


def read_json_lines(path: Path, validate: Callable[[bytes], Value], *, expected: str) -> list[Value]:
    r"""Read a file of one JSON value per line; [] if it does not exist.

    A last line without its `\n` was cut off when its writer was killed, and is left out. So are blank lines.

    Args:
        path: a file that need not exist.
        validate: of pydantic, such as `TypeAdapter(Receipt).validate_json`.
        expected: what one line holds, for the error message, such as "a receipt".

    Raises:
        ConfigError: a line does not hold what is expected; names the line and the first wrong value.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [
        parse_json(line, validate, where=f"{path}:{number}", expected=expected)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def write_json_lines(path: Path, values: Iterable[object]) -> None:
    """Write a file of one JSON value per line, whole or not at all.

    Raises:
        ConfigError: the path can't be written.
    """
    write_whole(path, "".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values).encode())


def write_json(path: Path, value: object) -> None:
    """Write a value as an indented JSON file, whole or not at all.

    Raises:
        ConfigError: the path can't be written.
    """
    write_whole(path, json.dumps(value, indent=2).encode() + b"\n")


def parse_json(content: bytes, validate: Callable[[bytes], Value], *, where: str, expected: str) -> Value:
    """Validate JSON that was read.

    Args:
        content: of a file, or of one line of it.
        validate: as of `read_json`.
        where: the file and the line, for the error message.
        expected: as of `read_json`.

    Raises:
        ConfigError: the content is not what is expected; names the first wrong value.
    """
    try:
        return validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        found = str(problem["input"])
        if len(found) > SHOWN_CHARACTERS:
            found = f"{found[:SHOWN_CHARACTERS]}..."
        at = f" at {key}" if key else ""
        raise ConfigError(
            f"{where}: must be {expected}, as this version writes it; found {found!r}{at} ({problem['msg']})"
        ) from error
