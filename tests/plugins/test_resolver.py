import sys

import pytest

from agile_ray.config import Credit, Env
from agile_ray.credit.modes import Mode, mode
from agile_ray.errors import ConfigError
from agile_ray.plugins.resolver import registered, resolve
from envs import build
from rollout.experts import build_expert

MODULE = """
from agile_ray.agent.expert import Advice
from envs import recurring

class Sage:
    source, reliability = "sage", 0.5
    def __init__(self, env): self.price = env.price
    async def advise(self, question, *, key): return Advice(text=question.text, answer="42")

def toy(env, *, seed): return recurring.Recurring(seed=seed)
def nothing(env, **_): return object()
def shouting(question, said): return said.isupper()
def amounts(evidence, config): return [1.0 for _ in evidence.sessions], {}
NUMBER = 3

def forgetful(env): return recurring.Recurring(seed=0)
def failing(env, **_):
    return {}["no such key"]
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module in the working folder, and an installed distribution with entry points to it."""
    (tmp_path / "sagely.py").write_text(MODULE)
    (tmp_path / "broken_one.py").write_text("import not_installed_anywhere\n")
    installed = tmp_path / "installed" / "sagely-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: sagely\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[agile_ray.environments]\ntoy_too = sagely:toy\n[agile_ray.experts]\nsage = sagely:Sage\n"
        "[agile_ray.judges]\nshouting = sagely:shouting\n[agile_ray.credit_modes]\nones = sagely:amounts\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "installed")])
    yield tmp_path
    sys.modules.pop("sagely", None)


@pytest.mark.parametrize("name", ["sagely:toy", "toy_too"])
def test_an_environment_is_found_by_its_address_and_by_its_entry_point(plugin, name):
    ours = build(Env(name="recurring"), seed=4).stream(split="test", index=2)
    assert build(Env(name=name), seed=4).stream(split="test", index=2).questions == ours.questions


@pytest.mark.parametrize("name", ["sagely:Sage", "sage"])
def test_an_expert_is_built_from_the_config(plugin, name):
    expert = build_expert(Env(name="shop", expert=name, advice_cost=0.2))
    assert (expert.source, expert.reliability, expert.price) == ("sage", 0.5, 200)


@pytest.mark.parametrize("name", ["sagely:amounts", "ones"])
def test_a_credit_mode_may_be_a_function_alone(plugin, name):
    assert isinstance(mode(Credit(mode=name).mode), Mode)


def test_a_name_in_the_working_folder_never_hides_an_installed_package(plugin):
    (plugin / "envs.py").write_text("raise RuntimeError('hidden')")
    assert build(Env(name="recurring"), seed=0)
    resolve("sagely:NUMBER", key="env.name", kind="environments", built_in={})
    assert sys.path.index(str(plugin)) > 0


@pytest.mark.parametrize(
    ("key", "name", "says"),
    [
        ("name", "sagly:toy", "env.name: sagly:toy: there is no module sagly in .* or among the installed packages"),
        ("name", "sagely:toys", "sagely.py has no toys; did you mean toy?"),
        ("name", "broken_one:x", "importing broken_one failed: ModuleNotFoundError: .*not_installed_anywhere"),
        ("name", "tasks/mine.py", "found tasks/mine.py; did you mean tasks.mine:NAME?"),
        ("name", "recuring", "found recuring; did you mean recurring?"),
        ("name", "sagely:NUMBER", r"must be a function build\(env, \*, seed\), found 3"),
        ("name", "sagely:nothing", "without search_function, stream, streams, texts"),
        ("name", "sagely:forgetful", "env.name: sagely:forgetful: building it failed: TypeError: .*'seed'"),
        ("name", "sagely:failing", r"building it failed \(sagely.py, line 18\): KeyError: 'no such key'"),
        ("judge", "sagely:NUMBER", "env.judge: sagely:NUMBER must be a function"),
    ],
)
def test_an_error_says_what_was_looked_for_and_where(plugin, key, name, says):
    with pytest.raises(ConfigError, match=says):
        build(Env(**{"name": "recurring", key: name}), seed=0)


def test_an_expert_that_can_not_be_built_is_one_line(plugin):
    with pytest.raises(
        ConfigError, match=r"env.expert: sagely:failing: building it failed \(sagely.py, line 18\): Key"
    ):
        build_expert(Env(name="shop", expert="sagely:failing"))


def test_an_expert_that_is_none_is_refused(plugin):
    with pytest.raises(ConfigError, match="env.expert: sagely:toy must be a function build|must build an expert"):
        build_expert(Env(name="shop", expert="sagely:nothing"))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("expert", "golden", "did you mean gold"),
        ("expert", "recorded:", "names the folder of a past run"),
        ("judge", "exakt", "did you mean exact"),
        ("judge", "http://me:secret@host/v1#m", "an address holds no user, password or query"),
        ("judge", "https://host/v1?key=abc#m", "an address holds no user, password or query"),
    ],
)
def test_a_name_that_nothing_has_is_refused_before_anything_is_imported(key, value, says):
    with pytest.raises(ValueError, match=says):
        Env(name="shop", **{key: value})


def test_no_plugin_is_registered_by_the_project_itself():
    assert not any(registered(kind) for kind in ("environments", "experts", "judges", "credit_modes"))
