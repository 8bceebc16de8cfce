"""The rules of the house style that a machine can check."""

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agile_ray.config import RunConfig
from agile_ray.knobs import knobs

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agile_ray", "envs", "rollout", "learner", "configs", "launch")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

KNOBS = 80  # see CONTRIBUTING.md
MODULES = 16
"""Maximum in one folder; split a folder that has more."""


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.read_text()], ids=name_of)
def test_a_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_are_annotated(path):
    for function in functions(path):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        bare = [argument.arg for argument in arguments if argument.annotation is None]
        assert set(bare) <= {"self", "cls"}, f"{function.name} leaves {bare} open"
        assert function.returns is not None or function.name == "__init__", (
            f"{function.name} does not say what it returns"
        )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_has_a_todo_or_an_unwritten_part(path):
    assert not re.search(r"\b(TODO|FIXME|XXX)\b|NotImplementedError", path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_private_module_of_ray_is_used(path):
    assert "ray._private" not in path.read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_comes_from_this_project(package):
    module = __import__(package)
    assert Path(module.__file__ or "").is_relative_to(ROOT), f"{package} comes from elsewhere"


def test_the_packages_are_listed_one_by_one():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    assert sorted(listed) == sorted(str(folder).replace("/", ".") for folder in folders)


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES}), ids=name_of)
def test_a_folder_has_few_modules(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MODULES


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_ignores_no_module():
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, SOURCES)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ignored.stdout.split() == []


def test_a_run_has_few_knobs():
    assert len(list(knobs(RunConfig))) <= KNOBS


def test_every_knob_says_what_it_means():
    silent = [knob.key for knob in knobs(RunConfig) if not knob.field.description]
    assert silent == []
