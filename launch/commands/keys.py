"""`agile-ray keys`: every key of a config, from the schema itself."""

import types
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agile_ray.config import RunConfig


def command() -> None:
    """Print every configuration key, its default and its meaning.

    Example: agile-ray keys | grep rollout
    """
    print(table())


def table() -> str:
    """The Markdown table that docs/configuration.md holds."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {_default(field)} | {_meaning(field)} |" for key, field in leaves(RunConfig)]
    return "\n".join(lines)


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key that has a value of its own."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    default = field.default
    return f"`{default}`" if isinstance(default, str | Path) else f"{default}".lower()


def _meaning(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    choices = _choices(field.annotation)
    told = all(choice in text for choice in choices)
    return text if told else f"{text} One of {', '.join(choices)}."


def _choices(annotation: object) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(choice) for choice in typing.get_args(annotation)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(annotation) for choice in _choices(part)]
    return []
