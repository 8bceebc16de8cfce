"""`agile-ray keys`: every key of a config, from the schema itself."""

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def command() -> None:
    """Print every configuration key, its default, whether a resumed run may change it, and its meaning.

    Example: agile-ray keys | grep rollout
    """
    print(table())


def table() -> str:
    """The Markdown table that docs/configuration.md holds."""
    from agile_ray.config import RunConfig
    from agile_ray.effects import may_change_on_resume
    from agile_ray.knobs import knobs

    lines = ["| key | default | on resume | meaning |", "|---|---|---|---|"]
    for knob in knobs(RunConfig):
        resumed = "may change" if may_change_on_resume(knob) else "fixed"
        lines.append(f"| `{knob.key}` | {default_of(knob.field)} | {resumed} | {_meaning(knob.field)} |")
    return "\n".join(lines)


def default_of(field: "FieldInfo") -> str:
    """A default as the table shows it."""
    if field.is_required():
        return "required"
    default = field.default
    if default is None or (isinstance(default, Mapping) and not default):
        return "none"
    return f"`{default}`" if isinstance(default, str | Path) else f"{default}".lower()


def _meaning(field: "FieldInfo") -> str:
    text = " ".join((field.description or "").split())
    choices = _choices(field.annotation)
    complete = all(choice in text for choice in choices)
    return text if complete else f"{text} One of {', '.join(choices)}."


def _choices(annotation: object) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(choice) for choice in typing.get_args(annotation)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(annotation) for choice in _choices(part)]
    return []
