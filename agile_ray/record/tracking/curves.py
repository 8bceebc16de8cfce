"""What a program that keeps curves must do: MLflow, Weights & Biases.

Each has two runs for one of ours, as there are two folders of TensorBoard events: NAME/imitation, whose steps are
optimizer steps, and NAME/ppo, whose steps are iterations.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from importlib import import_module
from types import ModuleType
from typing import Protocol

from agile_ray.config import RunConfig
from agile_ray.errors import AgileError, ConfigError, described
from agile_ray.knobs import knobs
from agile_ray.plugins.secrets import redacted
from agile_ray.record.history import Scalars

_USER = re.compile(r"//[^/\s]*@")

PROJECT = "agile-ray"
"""Of Weights & Biases, and the experiment of MLflow."""


class Outcome(StrEnum):
    """How a training has ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The values of one line of the history."""

    index: int  # how many lines its curves were given before
    time_ms: int  # when it was recorded, milliseconds since 1970
    scalars: Scalars


class Curves(Protocol):
    """One run of a program. What its methods raise are the errors of the program's client."""

    @property
    def id(self) -> str:
        """By which `Program.open` finds it again."""
        ...

    @property
    def place(self) -> str:
        """Where a person finds it, without secrets."""
        ...

    def add(self, entries: Sequence[Entry]) -> None:
        """Write entries; after an error, writing the same ones again writes none twice."""
        ...

    def end(self, outcome: Outcome, *, time_ms: int) -> str:
        """Mark it as ended, and say what is left to do by hand; "" if nothing is."""
        ...


class Program(Protocol):
    """A program at one server, or in one folder. What its methods raise are the errors of the program's client."""

    @property
    def where(self) -> str:
        """The server or the folder, without secrets."""
        ...

    def check(self) -> None:
        """Reach the server, and write nothing; of a folder, do nothing."""
        ...

    def prepare(self) -> None:
        """Do what is slow once, such as making a database; `open` works without it, too."""
        ...

    def open(self, name: str, knobs: Mapping[str, str], *, id: str | None, time_ms: int) -> Curves:
        """Begin a run, or go on with one.

        Args:
            name: of the run.
            knobs: of its configuration, by dotted key.
            id: of the run to go on with; None: a new one begins.
            time_ms: when a new one began, milliseconds since 1970.
        """
        ...


def described_knobs(config: RunConfig) -> dict[str, str]:
    """Every knob with its value, as text."""
    return {knob.key: str(reduce(getattr, knob.key.split("."), config)) for knob in knobs(RunConfig)}


def load(module: str) -> ModuleType:
    """A module of a package that only these programs need, and that few have.

    Raises:
        ConfigError: it can't be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ConfigError(
            f"{name}: needs a package that can't be imported ({error}); pip install 'agile-ray[{name}]'"
        ) from error


def said(error: Exception) -> str:
    """What a client's error says, in one line, without secrets."""
    text = str(error) if isinstance(error, AgileError) else described(error)
    return redacted(_USER.sub("//", text))


def public(address: str) -> str:
    """An address without the user, the password and the query that it may hold."""
    return _USER.sub("//", address).partition("?")[0]
