"""Finds configs: by the name of a shipped one, or by path."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from agile_ray.config import RunConfig, load
from agile_ray.errors import ConfigError

SWEEPS = "sweeps"
ROOT = Path(str(files("configs")))
"""Of the shipped configs."""


def read(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Load a config found by `find`, then apply `key=value` overrides.

    Raises:
        ConfigError: no such config, or `agile_ray.config.load` refuses it.
    """
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override {override!r}: overrides are written key=value, such as env.advice_cost=0.5")
    return load(find(name), overrides)


def find(name: str, *, folder: str = "") -> Path:
    """The path of a config.

    Args:
        name: a path to a YAML file, or the name of a shipped one without its ending, such as toy/three_prices.
        folder: of the shipped configs, where to look; "" is the top.

    Raises:
        ConfigError: neither exists; names the shipped ones.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.parent != Path():
        shipped = ROOT / folder / f"{name}.yaml"
        if path.is_file() or shipped.is_file():
            return path if path.is_file() else shipped
        raise ConfigError(f"config {name}: no such file; shipped ones are {_listing(folder)}")
    shipped = shipped_in(folder)
    if name not in shipped:
        raise ConfigError(f"config {name}: no shipped config has this name; there are {_listing(folder)}")
    return shipped[name]


def shipped_in(folder: str = "") -> dict[str, Path]:
    """Shipped configs of one folder: name to path."""
    return {path.stem: path for path in sorted((ROOT / folder).glob("*.yaml"))}


def _listing(folder: str) -> str:
    return ", ".join(shipped_in(folder)) or "none"
