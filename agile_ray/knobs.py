"""Knobs: fields of the configuration that declare what a change of their value affects."""

import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.fields import FieldInfo


class Affects(Flag):
    """What a change of a knob affects.

    A field declares it as `Annotated[int, Affects.MACHINES]`. A field without a declaration affects what its section
    declares, and a section without one affects everything: a forgotten declaration costs time, never a wrong result.
    """

    NOTHING = 0
    TRAINING = auto()  # what a run learns; a resumed run must keep it
    MACHINES = auto()  # engines and learners; they must be restarted
    IMITATION = auto()  # the SFT policy
    EVALUATION = auto()  # what a policy of given weights plays on the test questions
    COMPARISON = auto()  # runs that are compared as a pair must agree in it
    EVERYTHING = TRAINING | MACHINES | IMITATION | EVALUATION | COMPARISON


class Part(BaseModel):
    """Part of a configuration: read-only after loading; a misspelled key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _takes_what_its_type_means(cls, value: object, info: ValidationInfo) -> object:
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and bool not in kinds:
            raise ValueError(f"neither true nor false, found {value}")
        if not isinstance(value, str | Path):
            return value
        text = str(value)
        if type(None) in kinds and text.lower() in ("none", "~"):
            return None
        if {str, Path}.isdisjoint(kinds):
            return value
        _check_text(text)
        return _expand_home(text) if Path in kinds else text


class Section(Part):
    """A part whose fields are knobs."""

    affects: ClassVar[Affects] = Affects.EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One key that has a value of its own."""

    key: str  # dotted, such as env.advice_cost
    field: FieldInfo
    affects: Affects


def knobs(section: type[Section], prefix: str = "") -> Iterator[Knob]:
    """Yield every knob of a section and of the sections in it, in their order."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from knobs(field.annotation, f"{prefix}{name}.")
        else:
            stated = (item for item in field.metadata if isinstance(item, Affects))
            yield Knob(key=prefix + name, field=field, affects=next(stated, section.affects))


def is_text(section: type[BaseModel], keys: Sequence[str], *, alone: bool = False) -> bool:
    """Whether the value at a path of keys is a text or a path.

    Args:
        alone: not also a list or mapping of them.
    """
    field = section.model_fields.get(keys[0]) if keys else None
    if field is None:
        return False
    kinds = _kinds(field.annotation)
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return is_text(kind, keys[1:], alone=alone)
    if len(keys) > 1 and not any(map(_is_mapping, kinds)):
        return False
    if alone and any(map(typing.get_origin, kinds)):
        return False
    return not {str, Path}.isdisjoint(kinds if alone else _kinds(field.annotation, deep=True))


def _is_mapping(kind: object) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _kinds(annotation: object, *, deep: bool = False) -> set[object]:
    """The types that an annotation allows, those of a literal's words included.

    Args:
        deep: those within lists and mappings too.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return {type(word) for word in arguments}
    if origin in (typing.Union, types.UnionType) or (deep and arguments):
        return set[object]().union(*(_kinds(part, deep=deep) for part in arguments))
    return {annotation}


def _check_text(text: str) -> None:
    if not text:
        raise ValueError("a text must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a text must be valid UTF-8, found {text!r}") from error
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"a text must have no control characters, found {text!r}")


def _expand_home(path: str) -> str:
    """Replace a first part `~` or `~user` by that home folder."""
    if not path.startswith("~") and str(Path(path)).startswith("~"):
        return str(Path.cwd() / path)  # ./~ names a folder; it must not become ~, which later reads as home
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(f"~ must be the home folder of a user, found {path}; for a folder of this name write ./{path}")
    return expanded
