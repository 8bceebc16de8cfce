"""A run to look at, and a client of the viewer."""

import pytest
from starlette.testclient import TestClient

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.record import provenance
from agile_ray.record.folder import RunFolder
from launch.plan.light_tokenizer import LightTokenizer
from launch.view.app import application
from launch.view.runs import Runs
from tests.fakes.model_folder import write_model_folder

ADDRESS = "http://127.0.0.1:8321"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return LightTokenizer(write_model_folder(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def make_run(tmp_path):
    """Makes the folder of a run, with its config and a tokenizer, but without sessions."""

    def make(name, folder="runs", **sections):
        write_model_folder(tmp_path / folder / name / "sft")
        model = Model(path=tmp_path / "gone")
        config = RunConfig(run=Run(name=name, folder=tmp_path / folder), model=model, env=Env(name="shop"), **sections)
        provenance.write(config)
        return RunFolder.of(config)

    return make


@pytest.fixture
def run(make_run):
    return make_run("r")


def client(*folders):
    """A client of the viewer of these folders."""
    return TestClient(application(Runs(list(folders))), base_url=ADDRESS)


def ask(folders, path, **params):
    """The viewer's answer about one folder or several."""
    folders = folders if isinstance(folders, list | tuple) else [folders]
    found = client(*folders).get(f"/api/{path}", params=params)
    assert found.status_code == 200, found.text
    return found.json()


def keys(answer):
    return [row["key"] for row in answer["rows"]]
