"""Environments import only those modules of the core that an environment needs."""

import ast
from pathlib import Path

import pytest

import envs

ALLOWED = {
    "agile_ray.agent.environment",
    "agile_ray.agent.functions",
    "agile_ray.agent.threads",
    "agile_ray.config",
    "agile_ray.errors",
    "agile_ray.plugins.resolver",
    "agile_ray.plugins.secrets",
    "agile_ray.seeds",
    "agile_ray.types",
}
SECTIONS = {"Env"}
"""What an environment may import from the configuration."""
FILES = sorted(Path(envs.__file__).parent.rglob("*.py"))


def imports(path: Path) -> list[tuple[str, set[str]]]:
    """Modules of the core that a file imports, with the names taken from each."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [(alias.name, set()) for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named = [
        (node.module or "", {alias.name for alias in node.names}) for node in nodes if isinstance(node, ast.ImportFrom)
    ]
    return [(module, names) for module, names in plain + named if module.split(".")[0] == "agile_ray"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_environment_imports_only_allowed_modules(path: Path) -> None:
    for module, names in imports(path):
        assert module in ALLOWED
        assert module != "agile_ray.config" or names <= SECTIONS
