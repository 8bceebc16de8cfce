import json

import pytest

from agile_ray.errors import ConfigError
from agile_ray.record.checkpoints import FolderCheckpoints, adopt, best, every
from agile_ray.types import RunState


class Memo:
    """Learners and lanes that are one number."""

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
    def save(self, folder):
        raise OSError(28, "No space left on device")


def at(iteration):
    return RunState(imitation_steps=3, iteration=iteration, version=iteration)


def checkpoints(folder, memo, *, keep=2, resumed=lambda state: None):
    return FolderCheckpoints(folder, keep=keep, learners=memo, lanes=memo, resumed=resumed, sft=folder.parent / "sft")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_restore_goes_on_where_the_latest_checkpoint_stood(tmp_path):
    memo, told = Memo(), []
    for iteration in (1, 2):
        memo.number = 10 * iteration
        checkpoints(tmp_path, memo).save(at(iteration), score=None)
    fresh = Memo()
    assert checkpoints(tmp_path, fresh, resumed=told.append).restore() == at(2)
    assert (fresh.number, told) == (20, [at(2)])


def test_restore_of_nothing_starts_at_nothing(tmp_path):
    assert checkpoints(tmp_path, Memo()).restore() == RunState(imitation_steps=0, iteration=0, version=0)


def test_the_last_few_and_the_best_are_kept(tmp_path):
    for iteration, score in enumerate([0.5, 0.9, None, 0.9, 0.8]):
        checkpoints(tmp_path, Memo()).save(at(iteration + 1), score=score)
    assert names(tmp_path) == ["best", "iteration-00002", "iteration-00004", "iteration-00005"]
    assert (tmp_path / "best").resolve().name == "iteration-00002"
    leader = best(tmp_path)
    assert leader is not None
    assert leader.score == 0.9


def test_a_checkpoint_that_could_not_be_written_leaves_no_trace(tmp_path):
    checkpoints(tmp_path, Memo()).save(at(1), score=None)
    with pytest.raises(OSError, match="No space"):
        checkpoints(tmp_path, Full()).save(at(2), score=None)
    assert names(tmp_path) == ["iteration-00001"]


def test_half_a_checkpoint_of_a_killed_run_is_removed_and_not_read(tmp_path):
    (tmp_path / ".writing-dead" / "resume").mkdir(parents=True)
    (tmp_path / "iteration-00007").mkdir()
    assert checkpoints(tmp_path, Memo()).restore().iteration == 0
    assert every(tmp_path) == []
    assert not (tmp_path / ".writing-dead").exists()


def test_another_schema_is_an_error_that_says_what_to_do(tmp_path):
    checkpoints(tmp_path, Memo()).save(at(1), score=None)
    record = tmp_path / "iteration-00001" / "resume" / "state.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "schema": 99}))
    with pytest.raises(ConfigError, match="schema is 99, this version reads 2"):
        every(tmp_path)


def test_a_run_without_checkpoints_begins_with_the_policy_after_imitation(tmp_path):
    one = checkpoints(tmp_path / "a" / "checkpoints", Memo(7))
    done = RunState(imitation_steps=3, iteration=0, version=0)
    one.save(done, score=None)
    one.keep_sft(done)
    adopt(tmp_path / "a" / "sft", tmp_path / "b" / "sft")
    memo = Memo()
    assert checkpoints(tmp_path / "b" / "checkpoints", memo).restore() == done
    assert memo.number == 7


def test_what_is_adopted_can_be_chosen_by_name(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("sft.parquet", "ppo.parquet", "deep/ppo.parquet"):
        (tmp_path / "a" / name).write_text(name)
    adopt(tmp_path / "a", tmp_path / "b", only="sft*")
    assert names(tmp_path / "b") == ["sft.parquet"]
    adopt(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c" / "deep" / "ppo.parquet").read_text() == "deep/ppo.parquet"
