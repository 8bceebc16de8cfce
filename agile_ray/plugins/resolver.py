"""Finds what a config names but this project does not hold: environments, experts, judges, credit modes.

    shop                      built in
    trivia:build              the name `build` in the module `trivia`, which is installed or lies in the working folder
    trivia                    an entry point of an installed package, in the group of its kind

The groups of entry points are agile_ray.environments, agile_ray.experts, agile_ray.judges and agile_ray.credit_modes.
"""

import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from agile_ray.errors import AgileError, ConfigError, described

ADDRESS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""`package.module:name`."""

Part = TypeVar("Part")


def resolve(name: str, *, key: str, kind: str, built_in: Mapping[str, Part]) -> Part | object:
    """Find what a key of the config names.

    Args:
        name: as written in the config.
        key: the config's key, which begins errors.
        kind: the part of the group's name after `agile_ray.`, such as `environments`.
        built_in: this project's own, by name.

    Raises:
        ConfigError: nothing has this name, or importing it failed; says what was looked for, and where.
    """
    if name in built_in:
        return built_in[name]
    if ADDRESS.fullmatch(name):
        return _loaded(name, key=key)
    installed = registered(kind)
    if name in installed:
        return _loaded(installed[name].value, key=key)
    raise ConfigError(f"{key}: {unknown(name, [*built_in, *installed], kind=kind)}")


def built(make: Callable[[], Part], *, name: str, key: str, built_in: Mapping[str, object]) -> Part:
    """Call what a key of the config names. Errors of this project's own code are left as they are.

    Args:
        make: calls it.
        name: as written in the config.
        key: the config's key, which begins errors.
        built_in: this project's own, by name.

    Raises:
        ConfigError: it is not this project's own, and raised an error; names it, with the line that did.
    """
    try:
        return make()
    except AgileError:
        raise
    except Exception as error:
        if name in built_in:
            raise
        raise ConfigError(f"{key}: {name}: building it failed{_line(error)}: {described(error)}") from error


def _line(error: Exception) -> str:
    """The last line in the working folder that an error passed; "" if there is none."""
    own = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).parent == Path.cwd()]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def unknown(name: str, known: Iterable[str], *, kind: str) -> str:
    """What an error says of a name that nothing has."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if name.endswith(".py"):
        near = [f"{name.removesuffix('.py').replace('/', '.')}:NAME"]
    return (
        f"one of {', '.join(names)}, an entry point of the group agile_ray.{kind}, or package.module:name; "
        f"found {name}{f'; did you mean {near[0]}?' if near else ''}"
    )


def registered(kind: str) -> dict[str, EntryPoint]:
    """The entry points of installed packages, by name."""
    return {point.name: point for point in entry_points(group=f"agile_ray.{kind}")}


def is_known(name: str, *, kind: str, built_in: Iterable[str]) -> bool:
    """Whether a name can be meant, without importing anything."""
    return name in built_in or bool(ADDRESS.fullmatch(name)) or name in registered(kind)


def _loaded(address: str, *, key: str) -> object:
    """What is at `package.module:name`."""
    module_name, _, name = address.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that nothing in it hides an installed package
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        lacking = error.name if isinstance(error, ModuleNotFoundError) else None
        itself = lacking is not None and f"{module_name}.".startswith(f"{lacking}.")
        where = f"there is no module {lacking} in {folder} or among the installed packages" if itself else ""
        raise ConfigError(
            f"{key}: {address}: {where or f'importing {module_name} failed: {described(error)}'}"
        ) from error
    if not hasattr(module, name):
        names = sorted(one for one in vars(module) if not one.startswith("_"))
        near = difflib.get_close_matches(name, names, n=1)
        raise ConfigError(
            f"{key}: {address}: {module.__file__} has no {name}{f'; did you mean {near[0]}?' if near else ''}"
        )
    return getattr(module, name)
