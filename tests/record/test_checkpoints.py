import json

import pytest

from agile_ray.errors import ConfigError
from agile_ray.record.checkpoints import FolderCheckpoints, adopt, best_checkpoint, saved_checkpoints
from agile_ray.record.folder import RunFolder
from agile_ray.types import RunState
from tests.fakes.parts_contract import check_checkpoints


class Memo:
    """Learners, lanes or credit that are one number."""

    def __init__(self, number=0):
        self.number = number

    def export(self, folder):
        (folder / "config.json").write_text("{}")

    def save(self, folder):
        (folder / "number").write_text(str(self.number))

    def load(self, folder):
        self.number = int((folder / "number").read_text())

    def state(self):
        return str(self.number).encode()

    def restore(self, state):
        self.number = int(state)


class Full(Memo):
    """Cannot be saved."""

    def save(self, folder):
        raise OSError(28, "No space left on device")


def at(iteration):
    return RunState(imitation_steps=3, iteration=iteration, version=iteration)


def checkpoints(folder, memo, *, credit=None, keep=2, resumed=lambda state: None):
    run = RunFolder(folder)
    parts = {"learners": memo, "lanes": memo, "credit": credit or Memo(), "sft": run.sft}
    return FolderCheckpoints(run, keep=keep, resumed=resumed, **parts)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def saved(folder):
    return names(folder / "checkpoints")


def test_restore_loads_the_latest_checkpoint(tmp_path):
    memo, resumed = Memo(), []
    for iteration in (1, 2):
        memo.number = 10 * iteration
        checkpoints(tmp_path, memo).save(at(iteration), score=None)
    fresh = Memo()
    assert checkpoints(tmp_path, fresh, resumed=resumed.append).restore() == at(2)
    assert (fresh.number, resumed) == (20, [at(2)])


def test_the_state_of_credit_is_saved_after_the_first_iteration(tmp_path):
    checkpoints(tmp_path, Memo(), credit=Memo(7)).save(at(0), score=None)
    fresh = Memo()
    checkpoints(tmp_path, Memo(), credit=fresh).restore()
    assert fresh.number == 0
    checkpoints(tmp_path, Memo(), credit=Memo(8)).save(at(1), score=None)
    checkpoints(tmp_path, Memo(), credit=fresh).restore()
    assert fresh.number == 8


def test_a_run_without_checkpoints_starts_at_the_beginning(tmp_path):
    assert checkpoints(tmp_path, Memo()).restore() == RunState(imitation_steps=0, iteration=0, version=0)


def test_the_last_few_and_the_best_are_kept(tmp_path):
    for iteration, score in enumerate([0.5, 0.9, None, 0.9, 0.8]):
        checkpoints(tmp_path, Memo()).save(at(iteration + 1), score=score)
    assert saved(tmp_path) == ["best", "iteration-00002", "iteration-00004", "iteration-00005"]
    assert RunFolder(tmp_path).best_checkpoint.resolve().name == "iteration-00002"
    best = best_checkpoint(RunFolder(tmp_path))
    assert best is not None
    assert best.score == 0.9


def test_a_checkpoint_that_cannot_be_written_leaves_no_file(tmp_path):
    checkpoints(tmp_path, Memo()).save(at(1), score=None)
    with pytest.raises(OSError, match="No space"):
        checkpoints(tmp_path, Full()).save(at(2), score=None)
    assert saved(tmp_path) == ["iteration-00001"]


def test_an_unfinished_checkpoint_of_a_killed_run_is_never_read(tmp_path):
    folder = RunFolder(tmp_path).checkpoints
    (folder / ".iteration-00007.dead.aside" / "resume").mkdir(parents=True)
    (folder / "iteration-00007").mkdir()
    assert checkpoints(tmp_path, Memo()).restore().iteration == 0
    assert saved_checkpoints(RunFolder(tmp_path)) == []
    assert saved(tmp_path) == ["iteration-00007"]


def test_another_schema_is_an_error_that_says_what_to_do(tmp_path):
    checkpoints(tmp_path, Memo()).save(at(1), score=None)
    record = RunFolder(tmp_path).checkpoint(at(1)).state
    record.write_text(json.dumps({**json.loads(record.read_text()), "schema": 99}))
    with pytest.raises(ConfigError, match="schema must be 3, found 99; resume with"):
        saved_checkpoints(RunFolder(tmp_path))


def test_a_run_without_checkpoints_starts_from_an_adopted_sft_policy(tmp_path):
    one = checkpoints(tmp_path / "a", Memo(7))
    done = RunState(imitation_steps=3, iteration=0, version=0)
    one.save(done, score=None)
    one.keep_sft(done)
    adopt(RunFolder(tmp_path / "a").sft.path, RunFolder(tmp_path / "b").sft.path)
    memo = Memo()
    assert checkpoints(tmp_path / "b", memo).restore() == done
    assert memo.number == 7


def test_adopt_copies_only_files_whose_names_match(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("sft.parquet", "ppo.parquet", "deep/ppo.parquet"):
        (tmp_path / "a" / name).write_text(name)
    adopt(tmp_path / "a", tmp_path / "b", only="sft*")
    assert names(tmp_path / "b") == ["sft.parquet"]
    adopt(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c" / "deep" / "ppo.parquet").read_text() == "deep/ppo.parquet"


def test_folder_checkpoints_keep_the_contract_of_checkpoints(tmp_path):
    check_checkpoints(checkpoints(tmp_path, Memo(), keep=1))
