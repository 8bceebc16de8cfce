"""Finds specs, of runs and of sweeps: by the name of a shipped one, or by path."""

from collections.abc import Sequence
from pathlib import Path

from agile_ray.config import RunConfig
from agile_ray.config_file import Spec, load, read_spec
from agile_ray.errors import ConfigError

SWEEPS = "sweeps"
ROOT = Path(__file__).resolve().parents[2] / "configs"
"""Folder of the shipped configs, which are installed beside this package."""


def read(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Load a config that `find` finds, then apply `key=value` overrides.

    Raises:
        ConfigError: no such config, or `agile_ray.config_file.load` refuses it.
    """
    return load(find(name), overrides, find=find)


def spec(name: str) -> Spec:
    """Read the spec of a run or a sweep that `find` finds.

    Raises:
        ConfigError: no such spec, or `agile_ray.config_file.read_spec` refuses it.
    """
    return read_spec(find(name), find=find)


def find(name: str, *, folder: str = "") -> Path:
    """The path of a config.

    Args:
        name: a path to a YAML file, or the name of a shipped one without its ending, such as toy/three_prices.
        folder: subfolder of the shipped configs to look in; "" is the top, and after it the sweeps.

    Raises:
        ConfigError: neither exists; names the shipped ones.
    """
    path = Path(name).expanduser()
    shipped = shipped_in(folder) if folder else {**shipped_in(SWEEPS), **shipped_in()}
    if name in shipped:
        return shipped[name]
    if path.suffix.lower() in {".yaml", ".yml"} or path.parent != Path():
        if path.is_file():
            return path
        raise ConfigError(f"config {name}: no such file; shipped ones are {', '.join(shipped)}")
    kind = "sweep" if folder == SWEEPS else "config"
    one_run = "; it names one run, which `agile-ray train` or `submit` trains" if name in shipped_in() else ""
    raise ConfigError(
        f"{kind} {name}: no shipped {kind} has this name{one_run}; there are {', '.join(shipped)}; a file of your own "
        "ends in .yaml"
    )


def shipped_in(folder: str = "") -> dict[str, Path]:
    """Map name to path of the shipped configs in a folder and below it, without sweeps."""
    root = ROOT / folder
    found = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}
    return {name: path for name, path in found.items() if not name.startswith(f"{SWEEPS}/")}
