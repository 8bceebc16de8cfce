"""Which package may import which: import contracts, and what a fresh process loads."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "ray", "vllm", "deepspeed", "transformers", "sentence_transformers")

WALK = """
import importlib, pkgutil, sys
for name in {packages!r}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
print(*sorted(set({heavy!r}) & set(sys.modules)))
"""


def loaded_by(*packages):
    """Heavy libraries that a fresh process has loaded after importing every module of the packages."""
    code = WALK.format(packages=packages, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_import_contracts_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("packages", [("agile_ray",), ("envs",), ("launch",)], ids=" ".join)
def test_importing_every_module_loads_no_heavy_library(packages):
    assert loaded_by(*packages) == []


@pytest.mark.integration  # it imports Ray and torch
def test_the_driver_of_engines_and_ranks_loads_neither_vllm_nor_deepspeed():
    code = "import sys, learner.group, rollout.pool; print(*{'vllm', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []
