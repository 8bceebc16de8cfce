"""Books that can't be read are an error before engines start, and name the file."""

import pytest

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.errors import ConfigError
from agile_ray.record import provenance
from agile_ray.record.folder import RunFolder
from agile_ray.record.resume import check_record


@pytest.fixture
def run(tmp_path):
    config = RunConfig(run=Run(name="r", folder=tmp_path), model=Model(path=tmp_path), env=Env(name="shop"))
    provenance.write(config)
    return RunFolder.of(config)


def test_a_run_that_has_just_started_is_whole(run):
    run.history.write_text('{"event": "imit')  # cut off when its writer was killed
    run.journal(2, "0.0.ab").write_text("")
    check_record(run, run.sft)


@pytest.mark.parametrize("content", ['{"event": 3}\n', '{"key": "a#0#0"\n', "[]\n"])
@pytest.mark.parametrize("name", ["run.json", "history.jsonl", "abandoned.jsonl", "asked-00002-0.0.ab.jsonl"])
def test_a_book_that_is_damaged_is_refused(run, name, content):
    path = run.path / name
    path.write_text("[" + content if name == "run.json" else content)
    with pytest.raises(ConfigError, match=rf"/r/{name}(:1)?: must be "):
        check_record(run, run.sft)
