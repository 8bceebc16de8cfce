"""Reads specs: YAML files and dotted overrides, merged by OmegaConf, then the schemas in config.py.

A spec is the configuration of a run. It may include other specs, of which the later wins and the file itself last, and
name the axes of a sweep. Where a schema has a text or a path, a plain value keeps its spelling: `run.name=001` is the
name 001, and `run.folder=/d/x #1` the folder `/d/x #1`.
"""

import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from agile_ray.config import Axes, RunConfig
from agile_ray.errors import ConfigError
from agile_ray.knobs import is_text
from agile_ray.yaml_files import Keys, parse_yaml, read_yaml

INCLUDE = "include"
"""Top-level key of a file: the specs that it starts from, of which the later wins."""
BASE = "base"
"""The same for a single one."""
SCHEMA_KEY = "schema"
"""Top-level key of a file: the version of the form of specs that it is written in; it may be left out."""
OF_A_SPEC = (INCLUDE, BASE, SCHEMA_KEY, *Axes.model_fields)
"""Top-level keys of a spec that are no knobs of a run."""
SCHEMA = 1
"""The version that this code reads."""
RULE = "a sweep has `base` or `include`, and `runs`, each a list such as [seed=1, credit.mode=linked], or `grid`"
SHOWN_CHARACTERS = 100
"""Length to which an error message cuts the value that was found."""

REPLACED: Mapping[str, str] = {
    "credit.decay": "it is fixed at 0.9",
    "env.recorded": "it is env.expert=recorded:RUN now",
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
    "rollout.lanes": "it is rollout.seats for one actor, and loop.lanes for all actors together, now",
}
"""Keys that were renamed or removed, and what stands for them, for the error message."""
FIXED: Mapping[str, object] = {
    "agent.status_line": True,
    "cluster.dashboard_port": None,
    "env.recorded": None,
    "imitation.value_coefficient": 3.0,
    "learner.max_grad_norm": 1.0,
    "memory.capacity": 10_000,
    "run.keep_checkpoints": 2,
}
"""Removed keys, and the value that each is fixed at: a file with this value is read, as those of older runs are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A spec with everything that it includes. It is checked when it is resolved."""

    path: Path
    config: DictConfig  # of a run, unresolved
    axes: Axes
    origin: str  # name or path of the spec that a run of it starts from: this one, or what it only adds axes to

    def resolve(self, overrides: Sequence[str] = ()) -> RunConfig:
        """The configuration with `key.path=value` overrides.

        Raises:
            ConfigError: names the file, every bad key with the nearest known one, and its value.
        """
        try:
            merged = OmegaConf.merge(self.config, _overlay(overrides))
            values = _with_all_lanes(_without_fixed(OmegaConf.to_container(merged, resolve=True)))
        except (OmegaConfBaseException, ValueError, RecursionError) as error:
            raise ConfigError(f"{self.path}: {_said(error)}") from error
        try:
            return RunConfig.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{self.path}: " + "; ".join(explain(error, RunConfig))) from error

    def yaml(self) -> str:
        """The spec as one file without includes, which `read_spec` reads as this one."""
        axes = self.axes.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump({**_plain(self.config), **axes}, sort_keys=False)


def _plain(config: DictConfig) -> dict[str, object]:
    found = OmegaConf.to_container(config, resolve=False)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def load(path: Path, overrides: Sequence[str] = (), *, find: Callable[[str], Path] = Path) -> RunConfig:
    """Read the configuration of one run, then apply `key.path=value` overrides.

    Args:
        find: returns the path of an included spec that is not a file next to the one that names it.

    Raises:
        ConfigError: names the file, every bad key with the nearest known one, and its value; or the spec is a sweep,
            and no override names the run.
    """
    spec = read_spec(path, find=find)
    if spec.axes.vary and not any(override.startswith("run.name=") for override in overrides):
        raise ConfigError(
            f"{path}: one run is needed, found a sweep; `agile-ray sweep` trains all of its runs, and with --dry-run "
            "prints each as a command"
        )
    return spec.resolve(overrides)


def read_spec(path: Path, *, find: Callable[[str], Path] = Path) -> Spec:
    """Read a spec with everything that it includes.

    Args:
        find: returns the path of an included spec that is not a file next to the one that names it.

    Raises:
        ConfigError: a file can't be read, is no mapping, includes itself or has another schema; or the axes are wrong.
    """
    files = _files(path, find)
    own = files[-1]
    config, axes = OmegaConf.create(), OmegaConf.create()
    try:
        for file in files:
            config.merge_with(file.config)
            axes.merge_with(file.axes)
        checked = Axes.model_validate(OmegaConf.to_container(axes, resolve=False))
    except (OmegaConfBaseException, TypeError) as error:
        raise ConfigError(f"{path}: {_said(error)}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {RULE}; {'; '.join(explain(error, Axes))}") from error
    only_adds_axes = len(own.included) == 1 and not own.config
    return Spec(path=path, config=config, axes=checked, origin=own.included[0] if only_adds_axes else str(path))


def overridden(values: Mapping[str, str], overrides: Sequence[str] = ()) -> RunConfig:
    """A config without a file: these values by dotted key, then `key.path=value` overrides.

    Raises:
        ConfigError: names every bad key and its value.
    """
    layers = (_overlay([f"{key}={value}" for key, value in values.items()]), _overlay(overrides))
    try:
        return RunConfig.model_validate(OmegaConf.to_container(OmegaConf.merge(*layers), resolve=True))
    except (OmegaConfBaseException, ValidationError) as error:
        said = "; ".join(explain(error, RunConfig)) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(said) from error


def _without_fixed(values: object) -> object:
    """Leave out removed keys that have the value that they are fixed at."""
    for key, value in FIXED.items():
        section, _, name = key.partition(".")
        found = values.get(section) if isinstance(values, dict) else None
        if isinstance(found, dict) and name in found and found[name] == value:
            del found[name]
    return values


def _with_all_lanes(values: object) -> object:
    """Read `rollout.actors` with `rollout.lanes`, the lanes of each actor, as older runs have them, as `loop.lanes`."""
    sections = values if isinstance(values, dict) else {}
    rollout, loop = sections.get("rollout"), sections.setdefault("loop", {})
    if not (isinstance(rollout, dict) and isinstance(loop, dict) and "lanes" not in loop):
        return values
    actors, lanes = rollout.get("actors"), rollout.get("lanes")
    if isinstance(actors, int) and isinstance(lanes, int):
        loop["lanes"] = actors * lanes
        del rollout["lanes"]
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
    return is_text(Axes if keys and keys[0] in Axes.model_fields else RunConfig, keys)


def _overlay(overrides: Sequence[str]) -> DictConfig:
    layer = OmegaConf.create()
    for override in overrides:
        OmegaConf.update(layer, *parse_override(override), force_add=True)
    return layer


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """One YAML file of a spec."""

    config: DictConfig
    axes: DictConfig
    included: tuple[str, ...]  # names or paths, from the first to the last


def _files(path: Path, find: Callable[[str], Path], above: tuple[Path, ...] = ()) -> list[_File]:
    """What a file includes, from the first to the last, then the file itself."""
    above = (*above, path.resolve())
    content = read_yaml(path, _is_text)
    if not isinstance(content, dict):
        found = "an empty file" if content is None else type(content).__name__
        raise ConfigError(f"{path}: a config is a mapping of sections, found {found}")
    _check_schema(path, content.pop(SCHEMA_KEY, SCHEMA))
    files: list[_File] = []
    included: list[str] = []
    for name in _included(path, content):
        beside = path.parent / Path(name).expanduser()
        target = beside if beside.is_file() else find(name)
        if target.resolve() in above:
            raise ConfigError(f"{path}: {INCLUDE}: a config can't be based on itself, found {name}")
        files += _files(target, find, above)
        included.append(str(beside) if target == beside else name)
    axes = {key: content.pop(key) for key in Axes.model_fields if key in content}
    try:
        return [
            *files,
            _File(config=OmegaConf.create(content), axes=OmegaConf.create(axes), included=tuple(included)),
        ]
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """What OmegaConf says, in one line that begins with the key."""
    key = str(getattr(error, "full_key", None) or "")
    if isinstance(error, RecursionError) or "Recursive interpolation" in str(error):
        return f"{key or 'a value'} refers to itself through ${{...}}; break the circle"
    said = " ".join(str(error).partition("\n    full_key")[0].split())
    return f"{key}: {said}" if key else said


def _included(path: Path, content: dict[object, object]) -> list[str]:
    """Take the names of the included specs out of a file's content."""
    given = [key for key in (BASE, INCLUDE) if key in content]
    if len(given) > 1:
        raise ConfigError(f"{path}: {BASE} is short for {INCLUDE} with one name, found both; leave one out")
    value = content.pop(given[0], None) if given else None
    names = value if isinstance(value, list) else [] if value is None else [value]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ConfigError(f"{path}: {given[0]}: names or paths of configs are needed, found {wrong[0]!r}")
    return [str(name) for name in names]


def _check_schema(path: Path, found: object) -> None:
    if found != SCHEMA or isinstance(found, bool):
        raise ConfigError(
            f"{path}: {SCHEMA_KEY}: this version of agile-ray reads specs of schema {SCHEMA}, found {found}; use the "
            "version that the spec was written for, or write it anew"
        )


def explain(error: ValidationError, section: type[BaseModel]) -> Iterator[str]:
    """Yield one phrase for each problem: its key, the rule, what was found."""
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, [*keys(section), *OF_A_SPEC], n=1, cutoff=0)
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
            if kind is section:  # a colleague is an expert
                continue
            yield from keys(kind, f"{prefix}{name}.")


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _sections(part)
