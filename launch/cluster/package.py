"""Builds a job's working folder: this project's packages, what registers their entry points, and the user's modules.

    agile_ray/, envs/, ...            copies
    agile_ray-VERSION.dist-info/      METADATA and entry_points.txt: vLLM finds the weight transfer by them
    copied_from.json                  the commit, for the run's record
    modules that the config names     copies (launch/extend/ship.py)

It needs neither pip nor a package index, so a machine that has only installed the thin client can submit, too.
"""

import shutil
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import cast

from agile_ray.errors import ConfigError
from agile_ray.record.provenance import mark_copy

NAME = "agile-ray"
PACKAGES = ("agile_ray", "envs", "rollout", "learner", "configs", "launch")
INSTALLED = Path(__file__).resolve().parents[2]
"""The folder that this project's packages run from: a checkout, or the packages of an environment."""


def build(project: Path, package: Path) -> None:
    """Copy the project's packages and register their entry points.

    Args:
        project: a checkout, or a folder that the packages are installed in.
        package: the folder to make.

    Raises:
        ConfigError: the packages are not there.
    """
    if missing := [name for name in PACKAGES if not (project / name / "__init__.py").is_file()]:
        raise ConfigError(
            f"--project {project}: a checkout of agile-ray has the packages {', '.join(PACKAGES)}, found no "
            f"{', '.join(missing)}"
        )
    for name in PACKAGES:
        shutil.copytree(project / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    mark_copy(project, package)
    version, entry_points = _registered(project)
    folder = package / f"agile_ray-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def _registered(project: Path) -> tuple[str, str]:
    """Version, and content of entry_points.txt."""
    described = project / "pyproject.toml"
    if not described.is_file():
        try:
            installed = distribution(NAME)
        except PackageNotFoundError as error:
            raise ConfigError(f"--project {project}: a checkout of agile-ray has pyproject.toml, found none") from error
        return installed.version, installed.read_text("entry_points.txt") or ""
    table = cast("dict[str, object]", tomllib.loads(described.read_text(encoding="utf-8")).get("project", {}))
    groups = {"console_scripts": _mapping(table.get("scripts"))}
    groups |= {group: _mapping(points) for group, points in _mapping(table.get("entry-points")).items()}
    lines = [
        line for group, points in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))
    ]
    return str(table.get("version", "0")), "\n".join(lines) + "\n"


def _mapping(found: object) -> Mapping[str, object]:
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}
