"""Reads a run's configuration: YAML and dotted overrides, merged by OmegaConf, then the schema in config.py.

Where the schema has a text or a path, a plain value keeps its spelling: `run.name=001` is the name 001, and
`run.folder=/d/x #1` the folder `/d/x #1`.
"""

import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.knobs import is_text
from agile_ray.yaml_files import Keys, parse_yaml, read_yaml

BASE = "base"
"""Top-level key of a file: the config that it starts from."""
SHOWN_CHARACTERS = 100
"""Length to which an error message cuts the value that was found."""

REPLACED: Mapping[str, str] = {
    "credit.decay": "it is fixed at 0.9",
    "env.split": "it is the option --split of `agile-ray evaluate` now",
    "env.test_categories": "it is named env.categories.test now",
    "env.validation_categories": "it is named env.categories.validation now",
    "evaluate.final_sessions": "it is named evaluate.sessions now",
    "learner.deadline_s": "it is named cluster.deadline_s now",
    "learner.weight_decay": "it is fixed at 0",
    "loop.sessions": "it is named loop.sessions_per_lane now",
    "ppo.decay": "it is named ppo.gae_lambda now",
    "ppo.discount": "it is fixed at 1",
    "ppo.kl_target": "it is named ppo.adaptive_kl_target now",
    "ppo.stop_kl": "it is named ppo.early_stop_kl now",
    "ppo.value_clip": "it is fixed at 0.2",
    "rollout.deadline_s": "it is named cluster.deadline_s now",
}
"""Keys that were renamed or removed, and what stands for them, for the error message."""
FIXED: Mapping[str, object] = {
    "agent.status_line": True,
    "cluster.dashboard_port": None,
    "learner.max_grad_norm": 1.0,
    "run.keep_checkpoints": 2,
}
"""Removed keys, and the value that each is fixed at: a file with this value is read, as those of older runs are."""


def load(path: Path, overrides: Sequence[str] = (), *, find: Callable[[str], Path] = Path) -> RunConfig:
    """Read a YAML file on top of its base, then apply `key.path=value` overrides.

    Args:
        find: returns the path of a base that is not a file next to the one that names it.

    Raises:
        ConfigError: names the file, every bad key with the nearest known one, and its value.
    """
    try:
        merged = OmegaConf.merge(*_layers(path, find), _overlay(overrides))
        values = _without_fixed(OmegaConf.to_container(merged, resolve=True))
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(explain(error, RunConfig))) from error


def _without_fixed(values: object) -> object:
    """Leave out removed keys that have the value that they are fixed at."""
    for key, value in FIXED.items():
        section, _, name = key.partition(".")
        found = values.get(section) if isinstance(values, dict) else None
        if isinstance(found, dict) and name in found and found[name] == value:
            del found[name]
    return values


def parse_override(override: str) -> tuple[str, object]:
    """The key and the value of `key.path=value`.

    A value is YAML. An unquoted one of a text key is the text as it stands, unless it means null or is empty.

    Raises:
        ConfigError: it has another form, or its value is no YAML.
    """
    key, equals, text = override.partition("=")
    keys = tuple(key.split("."))
    if not (equals and all(keys)):
        raise ConfigError(f"override {override!r}: overrides are written key=value, such as env.advice_cost=0.5")
    text = text.strip()
    if is_text(RunConfig, keys, alone=True):
        return key, _text(text)
    try:
        return key, parse_yaml(text, _is_text, at=keys)
    except ValueError as error:
        raise ConfigError(f"override {override!r}: {error}") from error


def _text(text: str) -> str | None:
    if text in ("", "null", "Null", "NULL"):
        return None
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        try:
            unquoted = parse_yaml(text, lambda _: True)
        except ValueError:
            return text
        return unquoted if isinstance(unquoted, str) else text
    return text


def _is_text(keys: Keys) -> bool:
    return is_text(RunConfig, keys)


def _overlay(overrides: Sequence[str]) -> DictConfig:
    layer = OmegaConf.create()
    for override in overrides:
        OmegaConf.update(layer, *parse_override(override), force_add=True)
    return layer


def _layers(path: Path, find: Callable[[str], Path], above: tuple[Path, ...] = ()) -> list[DictConfig]:
    """The file and its chain of bases, from the lowest base to the file itself."""
    above = (*above, path.resolve())
    content = read_yaml(path, _is_text)
    if not isinstance(content, dict):
        found = "an empty file" if content is None else type(content).__name__
        raise ConfigError(f"{path}: a config is a mapping of sections, found {found}")
    file = OmegaConf.create(content)
    name = file.pop(BASE, None)
    if name is None:
        return [file]
    beside = path.parent / Path(str(name)).expanduser()
    base = beside if beside.is_file() else find(str(name))
    if base.resolve() in above:
        raise ConfigError(f"{path}: {BASE}: a config can't be based on itself, found {name}")
    return [*_layers(base, find, above), file]


def explain(error: ValidationError, section: type[BaseModel]) -> Iterator[str]:
    """Yield one phrase for each problem: its key, the rule, what was found."""
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, list(keys(section)), n=1, cutoff=0)
            fixed = f"it is fixed at {FIXED[key]}" if key in FIXED else f"the nearest known one is {near[0]}"
            yield f"unknown key {key}; {REPLACED.get(key, fixed)}"
        elif problem["type"] == "missing":
            yield f"{key} is required"
        elif problem["type"] == "value_error":
            yield f"{key}{': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}"
        else:
            yield f"{key}{': ' if key else ''}{problem['msg']}, found {_shortened(repr(problem['input']))}"


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


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
