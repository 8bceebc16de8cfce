"""Reads a run's configuration: YAML and dotted overrides through OmegaConf, then the schema in config.py."""

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, then apply `key.path=value` overrides.

    Raises:
        ConfigError: names the file, every bad key with the nearest known one, and its value.
    """
    try:
        file = OmegaConf.load(path)
        if not isinstance(file, DictConfig):
            raise ConfigError(f"{path}: a config is a mapping of sections, found {type(file).__name__}")
        merged = OmegaConf.merge(file, OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(explain(error, RunConfig))) from error


def explain(error: ValidationError, section: type[BaseModel]) -> Iterator[str]:
    """Of every problem: its key, the rule, what was found."""
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, list(keys(section)), n=1, cutoff=0)
            yield f"unknown key {key}; the nearest known one is {near[0]}"
        elif problem["type"] == "missing":
            yield f"{key} is required"
        elif problem["type"] == "value_error":
            yield f"{key}{': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}"
        else:
            yield f"{key}{': ' if key else ''}{problem['msg']}, found {problem['input']!r}"


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a section, sections themselves included."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for kind in _sections(field.annotation):
            yield from keys(kind, f"{prefix}{name}.")


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _sections(part)
