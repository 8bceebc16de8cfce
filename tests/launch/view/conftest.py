"""A run to look at."""

import pytest

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.record import provenance
from agile_ray.record.folder import RunFolder
from launch.plan.light_tokenizer import LightTokenizer
from tests.fakes.model_folder import write_model_folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return LightTokenizer(write_model_folder(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def make_run(tmp_path):
    """Makes the folder of a run, with its config and a tokenizer, but without sessions."""

    def make(name, folder="runs"):
        write_model_folder(tmp_path / folder / name / "sft")
        model = Model(path=tmp_path / "gone")
        config = RunConfig(run=Run(name=name, folder=tmp_path / folder), model=model, env=Env(name="shop"))
        provenance.write(config)
        return RunFolder.of(config)

    return make


@pytest.fixture
def run(make_run):
    return make_run("r")
