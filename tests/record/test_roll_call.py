import os
import shutil

import pytest

from agile_ray.errors import ConfigError
from agile_ray.record import roll_call as module
from agile_ray.record.folder import RunFolder
from agile_ray.record.roll_call import RollCall, roll_call


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)


def elsewhere(call, folder):
    """The same call on a node where the run's folder is another one."""
    return RollCall(run=call.run, folder=folder, word=call.word)


def test_processes_that_see_one_folder_answer_and_nothing_is_left(tmp_path):
    run = RunFolder(tmp_path / "deep" / "run")
    with roll_call(run) as call:
        for name in ("rank-0", "engine-1"):
            call.answer(name)
        call.check(["rank-0", "engine-1"])
    assert list(run.path.iterdir()) == []


def test_a_node_without_the_folder_is_named(tmp_path):
    with (
        roll_call(RunFolder(tmp_path / "run")) as call,
        pytest.raises(
            ConfigError, match=rf"^{tmp_path}/run: run.folder must be one .* rank-3 on node \S+ does not find"
        ),
    ):
        elsewhere(call, tmp_path / "local").answer("rank-3")


def test_a_node_with_an_old_copy_of_the_folder_is_named(tmp_path):
    with roll_call(RunFolder(tmp_path / "run")) as call:
        shutil.copytree(call.folder, tmp_path / "copy")
        (tmp_path / "copy" / "driver").write_text("0123456789abcdef")
        with pytest.raises(
            ConfigError, match=r"engine-0 on node \S+ does not find there .*\(0123456789abcdef\); put it on"
        ):
            elsewhere(call, tmp_path / "copy").answer("engine-0")


def test_a_node_that_writes_into_a_copy_is_named(tmp_path):
    with roll_call(RunFolder(tmp_path / "run")) as call:
        shutil.copytree(call.folder, tmp_path / "copy")
        elsewhere(call, tmp_path / "copy").answer("rank-1")
        call.answer("rank-0")
        with pytest.raises(
            ConfigError, match=r"the driver on node \S+ does not find there what rank-1 wrote \(No such"
        ):
            call.check(["rank-0", "rank-1"])


def test_a_node_that_can_not_write_is_named(tmp_path, monkeypatch):
    with roll_call(RunFolder(tmp_path / "run")) as call:

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(ConfigError, match=r"rank-0 on node \S+ can't write there \(.*Permission denied\)"):
            call.answer("rank-0")


def test_what_a_killed_driver_left_is_removed_at_a_resume(tmp_path):
    from agile_ray.record.resume import discard_after

    run = RunFolder(tmp_path)
    run.roll_call("dead").mkdir()
    discard_after(run, 0)
    assert list(tmp_path.iterdir()) == []
