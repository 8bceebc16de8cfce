"""Knobs: fields of the configuration that declare what a change of their value affects."""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Flag, auto
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
    JUDGEMENT = auto()  # the SFT policy, if the teacher asks by judgement
    EVALUATION = auto()  # what a policy of given weights plays on the test questions
    COMPARISON = auto()  # runs that are compared as a pair must agree in it
    EVERYTHING = TRAINING | MACHINES | IMITATION | JUDGEMENT | EVALUATION | COMPARISON


class Section(BaseModel):
    """Part of a configuration: read-only after loading; a misspelled key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )
    affects: ClassVar[Affects] = Affects.EVERYTHING

    @field_validator("*", mode="before")
    @classmethod
    def _takes_no_truth_value_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (kind, *typing.get_args(kind)):
            raise ValueError(f"neither true nor false, found {value}")
        return value


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
