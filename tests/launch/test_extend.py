"""`agile-ray check`, `agile-ray new environment`, and what `submit` takes along."""

import subprocess
import sys
from pathlib import Path

import pytest

from agile_ray.config_file import overridden
from agile_ray.errors import ConfigError
from launch.extend.check import check
from launch.extend.ship import ship
from launch.extend.streams import sizes
from launch.run.shipped_configs import read

FAULTY = """
import random
from dataclasses import replace
from agile_ray.agent.environment import Found, Question
from envs.one_stream import OneStream
from envs.dataset.judges import exact

def questions(split, answer="{}", **more):
    return [Question(id=f"{n}-{w}", text=f"{split} {n} in words {w} ?", item=f"{split} {n}",
            answer=answer.format(n), **more) for n in range(3) for w in range(2)]

def splits(**more):
    found = {split: questions(split, **more) for split in ("train", "validation", "test")}
    return found | {"imitation": found["train"]}

def made(splits, judge=exact, **more):
    return lambda env, *, seed: OneStream("faulty", splits=splits, judge=judge, **more)

fine = made(splits())
impossible = made(splits(guess_probability=2.5))
untexted = made(splits(product=7))
def differing(env, *, seed):
    one = splits()
    one["test"][1] = replace(one["test"][1], answer="other")
    return OneStream("faulty", splits=one, judge=exact)
twice = made(splits() | {"test": questions("test")[:1] * 2})
def undetermined(env, *, seed):
    return OneStream("faulty", splits=splits(answer=str(random.random())), judge=exact)
def hashed(env, *, seed):
    one = splits()
    return OneStream("faulty", splits=one | {"test": sorted(one["test"], key=lambda q: hash(q.id))}, judge=exact)
shared = made({split: questions("same") for split in ("imitation", "train", "validation", "test")})
strict = made(splits(), judge=lambda question, said: False)
lenient = made(splits(), judge=lambda question, said: True)
generous = made(splits(), judge=lambda question, said: 7 if said == question.answer else 0)
def raises(question, said): raise KeyError("judge")
breaks = made(splits(), judge=raises)
untooled = made(splits(query="find it"))
flaky = made(splits(query="find it"), search=lambda *_: Found(text=str(random.random()), rows=None, bad_query=False))
class Streamless:
    search_function = "[Search]"
    def texts(self): return []
    def streams(self, split): return 1
    def stream(self, *, split, index): raise ValueError("no stream")
def streamless(env, *, seed): return Streamless()
easy = made(splits(guess_probability=1.0))
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("faulty", None)


def found(name, *overrides):
    config = overridden({"env.name": name, "run.name": "check", "model.path": "models"}, overrides)
    return [str(finding) for finding in check(config)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("impossible", "error: faulty/train/0: question 0-0: guess_probability is from 0 to 1, found 2.5"),
        ("untexted", "error: faulty/train/0: question 0-0: product is a text, found 7"),
        ("differing", "error: faulty/test/0: questions on one item have equal answers, found ['0', 'other'] on item"),
        ("twice", "error: faulty/test/0: each question has an id of its own, found 0-0 again"),
        ("undetermined", "error: faulty/train/0: the same arguments must give the same stream, found another"),
        ("hashed", "error: faulty/test/0: every process must build the same stream, found another in a second one"),
        ("shared", "error: validation: training must not answer its questions, found 6 of 6 in training"),
        ("strict", "error: faulty/train/0: question 0-0: the answer in words, '0', must be right, found 0"),
        ("lenient", "error: faulty/train/0: question 0-0: an empty answer must be wrong, found it right"),
        (
            "generous",
            "error: faulty/train/0: question 0-0: judge() of the answer in words must be from 0 to 1, found 7",
        ),
        ("breaks", "error: faulty/train/0: question 0-0: judge() of the answer in words raised KeyError: 'judge'"),
        ("untooled", "error: faulty/train/0: question 0-0: the tool must take the gold query 'find it', found 'error"),
        ("flaky", "warning: faulty/train/0: question 0-0: the tool should answer 'find it' the same way twice"),
        ("streamless", "error: train: must have streams, found ValueError: no stream"),
        ("easy", "warning: validation: there is nothing to learn about asking: the oracle's total is 0.000"),
    ],
)
def test_a_fault_is_found_and_named(faulty, name, says):
    said = found(f"faulty:{name}")
    assert any(line.startswith(says) for line in said), said


def test_an_environment_without_faults_has_no_findings(faulty):
    assert found("faulty:fine") == []


def test_a_session_that_does_not_fit_is_found(faulty):
    [said] = found("faulty:fine", "agent.session_tokens=20")
    assert said.startswith("error: validation: 6 of 6 sessions of oracle")  # a training would not begin
    assert "do not fit into agent.session_tokens (20)" in said


def test_check_ends_with_code_1_for_an_error_and_0_for_a_warning(faulty, call):
    code, said, _ = call("check", "faulty:impossible")
    assert (code, said.splitlines()[-1]) == (1, "faulty:impossible: 4 errors, 0 warnings")
    code, said, _ = call("check", "faulty:easy")
    assert (code, said.splitlines()[-1]) == (0, "faulty:easy: 0 errors, 1 warnings")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("faulty:fine", "train: 6 questions; validation: 6 questions; test: 6 questions"),
        ("recurring", "train: endless streams, 24 questions in the first; validation: endless streams"),
    ],
)
def test_the_size_of_each_split_is_said(faulty, name, says):
    config = overridden({"env.name": name, "run.name": "check", "model.path": "models"}, [])
    assert sizes(config).startswith(says)


def test_the_built_in_toy_has_no_findings():
    assert found("recurring", "memory.threshold=0.72") == []


def test_a_new_environment_works_as_it_is_written(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    code, said, _ = call("new", "environment", "harbour")
    assert code == 0
    assert said.splitlines()[:3] == ["harbour.py", "harbour.yaml", "test_harbour.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "test_harbour.py"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": ""},
    )
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(("name", "says"), [("my-env", "the name of a module"), ("Mine", "the name of a module")])
def test_a_name_that_is_no_modules_is_refused(tmp_path, monkeypatch, call, name, says):
    monkeypatch.chdir(tmp_path)
    code, _, said = call("new", "environment", name)
    assert (code, says in said, list(tmp_path.iterdir())) == (2, True, [])


def test_a_file_is_never_overwritten(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("kept")
    code, _, said = call("new", "environment", "mine")
    assert (code, [path.name for path in tmp_path.iterdir()]) == (2, ["mine.yaml"])
    assert "mine.yaml: it is there already" in said


def shipped(package, *overrides):
    package.mkdir()
    return ship([read("quickstart", list(overrides))], package)


def test_nothing_is_shipped_for_what_is_built_in(tmp_path):
    assert shipped(tmp_path / "package", "credit.mode=linked", "env.judge=http://h/v1#m") == []
    assert list((tmp_path / "package").iterdir()) == []


def test_modules_and_packages_are_copied_and_can_be_imported_there(tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "shipped_pack" / "inner").mkdir(parents=True)
    (here / "shipped_pack" / "__init__.py").touch()
    (here / "shipped_pack" / "inner" / "judge.py").write_text(
        "from shipped_pack import inner\ndef good(q, s): return True\n"
    )
    (here / "shipped_one.py").write_text("def build(env, *, seed): ...\n")
    monkeypatch.chdir(here)
    names = shipped(tmp_path / "package", "env.name=shipped_one:build", "env.judge=shipped_pack.inner.judge:good")
    assert sorted(names) == ["shipped_one", "shipped_pack"]
    files = {str(path.relative_to(tmp_path / "package")) for path in (tmp_path / "package").rglob("*.py")}
    assert files == {"shipped_one.py", "shipped_pack/__init__.py", "shipped_pack/inner/judge.py"}


def test_a_module_that_needs_a_neighbour_is_refused_before_anything_is_sent(tmp_path, monkeypatch):
    (tmp_path / "needy_one.py").write_text("import neighbour_of_needy\n")
    (tmp_path / "neighbour_of_needy.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="env.name: needy_one must be importable from its copy .*neighbour_of_needy"):
        shipped(tmp_path / "package", "env.name=needy_one:build")


def test_an_entry_point_is_found_in_the_copy_too(tmp_path, monkeypatch):
    here = tmp_path / "here"
    meta = here / "pointed-1.0.dist-info"
    meta.mkdir(parents=True)
    (here / "pointed.py").write_text("def build(env, *, seed): ...\n")
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: pointed\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[agile_ray.environments]\npointed_env = pointed:build\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(here)])
    assert shipped(tmp_path / "package", "env.name=pointed_env") == ["pointed"]
    looked = "from agile_ray.plugins.resolver import registered; print(registered('environments')['pointed_env'].value)"
    done = subprocess.run(
        [sys.executable, "-c", looked],
        cwd=tmp_path / "package",
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.stdout == "pointed:build\n"
