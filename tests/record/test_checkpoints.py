import errno
import json
import os
import shutil
from types import SimpleNamespace

import pytest

from agile_ray.errors import ConfigError, LearnerError
from agile_ray.record.checkpoints import FolderCheckpoints, adopt, best_checkpoint, saved_checkpoints
from agile_ray.record.folder import RunFolder
from agile_ray.types import RunState, ValidationScore
from tests.fakes.checkpoint import export
from tests.fakes.parts_contract import check_checkpoints


class Memo:
    """Learners or credit that are one number."""

    def __init__(self, number=0):
        self.number = number

    def export(self, folder):
        export(folder)

    def save(self, folder):
        (folder / "number").write_text(str(self.number))

    def load(self, folder):
        self.number = int((folder / "number").read_text())

    def state(self):
        return str(self.number).encode()

    def restore(self, state):
        self.number = int(state)


class Lanes:
    """Lanes whose state is the number of a memo."""

    def __init__(self, memo):
        self.memo = memo

    def save(self, folder, *, earlier):
        self.memo.save(folder)
        self.memo.earlier = earlier

    def restore(self, folder):
        self.memo.load(folder)


class Full(Memo):
    """Cannot be saved."""

    def save(self, folder):
        raise OSError(28, "No space left on device")


def at(iteration):
    return RunState(imitation_steps=3, iteration=iteration, version=iteration)


def scored(iteration, total, *means):
    """A score on validation; without means, as of an earlier version."""
    units = {f"s{index}": (10_000 * mean, 10) for index, mean in enumerate(means)}
    return ValidationScore(iteration=iteration, total=total, units=units or None)


def checkpoints(folder, memo, *, credit=None, keep=2, resumed=lambda state: None, say=print):
    run = RunFolder(folder)
    parts = {"learners": memo, "lanes": Lanes(memo), "credit": credit or Memo(), "sft": run.sft, "say": say}
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
    for iteration, total in enumerate([0.5, 0.9, None, 0.8, 0.8], start=1):
        score = None if total is None else scored(iteration, total, total, total - 0.1)
        checkpoints(tmp_path, Memo()).save(at(iteration), score=score)
    assert saved(tmp_path) == ["best", "iteration-00002", "iteration-00004", "iteration-00005"]
    assert RunFolder(tmp_path).best_checkpoint.resolve().name == "iteration-00002"
    best = best_checkpoint(RunFolder(tmp_path))
    assert best is not None
    assert (best.checkpoint.score, best.choice.highest_total) == (0.9, pytest.approx(0.85))


EVALUATED = [  # iteration 3 is within one standard error of iteration 1, iterations 2 and 4 are surely lower
    scored(1, 0.7, 0.9, 0.5, 0.7),
    scored(2, 0.6, 0.8, 0.4, 0.6),
    scored(3, 0.6, 0.9, 0.5, 0.4),
    scored(4, 0.5, 0.7, 0.3, 0.5),
]


def test_a_deleted_checkpoint_still_counts_as_the_highest_and_the_chosen_one_stays(tmp_path):
    kept = []
    for score in EVALUATED:
        checkpoints(tmp_path, Memo(), keep=1).save(at(score.iteration), score=score)
        kept.append(saved(tmp_path)[1:])
    checkpoints(tmp_path, Memo(), keep=1).save(at(5), score=None)
    assert [[int(name[-1]) for name in names] for names in kept] == [[1], [1, 2], [3], [3, 4]]
    assert saved(tmp_path) == ["best", "iteration-00003", "iteration-00005"]
    best = best_checkpoint(RunFolder(tmp_path))
    assert (best.checkpoint.state, best.choice.highest, best.choice.evaluated) == (at(3), 1, 4)


def test_a_run_that_went_back_to_an_earlier_checkpoint_forgets_the_evaluations_after_it(tmp_path):
    for score in EVALUATED:
        checkpoints(tmp_path, Memo(), keep=4).save(at(score.iteration), score=score)
    lost(RunFolder(tmp_path).checkpoint(at(4)).state)
    lost(RunFolder(tmp_path).checkpoint(at(3)).state)
    again = checkpoints(tmp_path, Memo(), keep=4)
    assert again.restore() == at(2)
    again.save(at(3), score=scored(3, 0.5, 0.7, 0.3, 0.5))
    best = best_checkpoint(RunFolder(tmp_path))
    assert (best.choice.iteration, best.choice.evaluated) == (1, 3)


def test_if_the_chosen_checkpoint_is_damaged_the_next_choice_is_taken(tmp_path):
    for score in EVALUATED:
        checkpoints(tmp_path, Memo(), keep=4).save(at(score.iteration), score=score)
    emptied(RunFolder(tmp_path).checkpoint(at(3)).path / "config.json")
    best = best_checkpoint(RunFolder(tmp_path))
    assert (best.checkpoint.state, best.choice.evaluated) == (at(1), 3)


def test_checkpoints_of_an_earlier_version_are_compared_by_their_stored_totals(tmp_path):
    for score in EVALUATED[:2]:
        checkpoints(tmp_path, Memo(), keep=4).save(at(score.iteration), score=score)
        record = RunFolder(tmp_path).checkpoint(at(score.iteration)).state
        record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "evaluated"}))
    for score in EVALUATED[2:]:
        checkpoints(tmp_path, Memo(), keep=4).save(at(score.iteration), score=score)
    best = best_checkpoint(RunFolder(tmp_path))
    assert (best.choice.iteration, best.choice.evaluated, best.choice.unpaired) == (1, 4, (1, 2))


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
    with pytest.raises(ConfigError, match="schema must be 6, found 99; resume with"):
        saved_checkpoints(RunFolder(tmp_path))


@pytest.mark.parametrize("schema", [4, 5])
def test_an_earlier_version_is_read_where_it_has_no_lanes_and_refused_where_it_has(tmp_path, schema):
    def as_earlier(state):
        record = RunFolder(tmp_path).checkpoint(state).state
        record.write_text(json.dumps({**json.loads(record.read_text()), "schema": schema}))

    imitated = RunState(imitation_steps=3, iteration=0, version=0)
    checkpoints(tmp_path, Memo(5)).save(imitated, score=None)
    as_earlier(imitated)
    memo = Memo()
    assert (checkpoints(tmp_path, memo).restore(), memo.number) == (imitated, 5)
    checkpoints(tmp_path, Memo(6)).save(at(1), score=None)
    as_earlier(at(1))
    with pytest.raises(
        ConfigError, match=f"iteration-00001/resume/state.json: .* must be 6, found {schema}; resume with"
    ):
        checkpoints(tmp_path, memo).restore()


def test_lanes_are_told_the_latest_whole_checkpoint_before_theirs(tmp_path):
    memo, run = Memo(), RunFolder(tmp_path)
    one = checkpoints(tmp_path, memo, keep=9)
    told = []
    for iteration in (2, 4, 6, 8):
        one.save(at(iteration), score=None)
        told.append(memo.earlier)
        if iteration == 6:
            emptied(run.checkpoint(at(6)).path / "config.json")
    assert told == [None, *(run.checkpoint(at(iteration)).lanes for iteration in (2, 4, 4))]


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


def lost(path):
    path.unlink()


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = [
    *((name, damage) for name in ("config.json", "model.safetensors") for damage in (lost, emptied, cut)),
    *(
        (f"resume/{name}", damage)
        for name in ("learners/number", "lanes/number", "credit")
        for damage in (lost, emptied, cut)
    ),
    ("resume/state.json", emptied),
    ("resume/state.json", cut),
    ("resume/state.json", lambda path: path.write_text("[3]")),
    ("resume/state.json", lambda path: path.write_text(path.read_text().replace("iteration", "iterations"))),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_checkpoint_that_is_not_whole_is_skipped_and_named_and_written_again(tmp_path, name, damage):
    for iteration in (3, 7):
        checkpoints(tmp_path, Memo(iteration)).save(
            at(iteration), score=scored(iteration, 0.1 * iteration, 0.1, 0.1 * iteration)
        )
    newest = RunFolder(tmp_path).checkpoint(at(7))
    damage(newest.path / name)
    memo, said = Memo(), []
    again = checkpoints(tmp_path, memo, say=said.append)
    assert (again.restore(), memo.number) == (at(3), 3)
    [line] = said
    assert line.startswith(f"skipped {newest.path}: ")
    assert any(word in line for word in (name, os.path.basename(name), os.path.dirname(name) or "*.safetensors"))
    leader = best_checkpoint(RunFolder(tmp_path))
    assert leader is not None
    assert leader.checkpoint.state == at(3)
    again.save(at(7), score=None)
    assert checkpoints(tmp_path, Memo()).restore() == at(7)


def test_a_lost_shard_of_the_weights_is_named(tmp_path):
    checkpoints(tmp_path, Memo()).save(at(1), score=None)
    checkpoints(tmp_path, Memo()).save(at(2), score=None)
    newest, said = RunFolder(tmp_path).checkpoint(at(2)).path, []
    shards = {"a": "model.safetensors", "b": "model-2.safetensors"}
    (newest / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert checkpoints(tmp_path, Memo(), say=said.append).restore() == at(1)
    assert said == [f"skipped {newest}: it has no model-2.safetensors"]


@pytest.mark.parametrize("damage", [emptied, cut])
def test_a_damaged_adapter_is_named(tmp_path, damage):
    checkpoints(tmp_path, Memo()).save(at(1), score=None)
    checkpoints(tmp_path, Memo()).save(at(2), score=None)
    newest, said = RunFolder(tmp_path).checkpoint(at(2)), []
    newest.adapter.mkdir()
    shutil.copy(newest.path / "model.safetensors", file := newest.adapter / "adapter_model.safetensors")
    assert checkpoints(tmp_path, Memo()).restore() == at(2)
    damage(file)
    assert checkpoints(tmp_path, Memo(), say=said.append).restore() == at(1)
    assert said[0].startswith(f"skipped {newest}: {file.name} can't be read")


def test_a_checkpoint_of_an_earlier_version_that_lists_no_files_is_read(tmp_path):
    checkpoints(tmp_path, Memo(4)).save(at(4), score=scored(4, 0.5))
    folder = RunFolder(tmp_path).checkpoint(at(4))
    record = json.loads(folder.state.read_text())
    del record["files"]
    folder.state.write_text(json.dumps(record))
    assert checkpoints(tmp_path, Memo()).restore() == at(4)
    folder.credit.write_bytes(b"")
    with pytest.raises(ConfigError, match="iteration-00004: resume/credit is empty"):
        checkpoints(tmp_path, Memo()).restore()


def test_a_run_whose_checkpoints_are_all_damaged_or_gone_is_not_started_over(tmp_path):
    run = RunFolder(tmp_path)
    checkpoints(tmp_path, Memo()).save(at(2), score=None)
    run.checkpoint(at(2)).state.write_text("{")
    with pytest.raises(
        ConfigError, match=r"needs a whole checkpoint, found none \(.*iteration-00002: state.json can't"
    ):
        checkpoints(tmp_path, Memo()).restore()
    run.checkpoint(at(2)).state.unlink()
    run.segments.mkdir()
    run.segment_file(1).touch()
    with pytest.raises(ConfigError, match=r"needs a whole checkpoint, found none \(they are gone\)"):
        checkpoints(tmp_path, Memo()).restore()


class Elsewhere(Memo):
    """Learners on a node that sees another folder."""

    def export(self, folder):
        pass


def test_a_checkpoint_that_the_learners_wrote_elsewhere_is_refused_and_the_earlier_ones_stay(tmp_path):
    for iteration in (1, 2):
        checkpoints(tmp_path, Memo()).save(at(iteration), score=scored(iteration, 0.5))
    with pytest.raises(LearnerError, match="iteration-00003: .* it has no config.json; every node must see"):
        checkpoints(tmp_path, Elsewhere()).save(at(3), score=scored(3, 0.9))
    assert saved(tmp_path) == ["best", "iteration-00001", "iteration-00002"]


class Torn(Memo):
    """Learners whose library has its own words for a disk that is full."""

    def save(self, folder):
        raise LearnerError("learner.save: a rank failed, RuntimeError: unexpected pos 64 vs 0")


@pytest.mark.parametrize(("free", "error"), [(1 << 16, OSError), (1 << 33, LearnerError)])
def test_learners_that_fail_on_a_full_disk_are_told_from_those_that_fail(tmp_path, monkeypatch, free, error):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(error):
        checkpoints(tmp_path, Torn()).save(at(1), score=None)
    assert saved(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_links_has_no_best_and_says_so(tmp_path, monkeypatch, number):
    checkpoints(tmp_path, Memo()).save(at(1), score=scored(1, 0.5))

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "symlink", refuse)
    said = []
    checkpoints(tmp_path, Memo(), say=said.append).save(at(2), score=scored(2, 0.7))
    [line] = said
    assert line.startswith("the best checkpoint on validation is iteration-00002, without a link to it (")
    assert saved(tmp_path) == ["iteration-00001", "iteration-00002"]


def test_a_link_that_a_killed_process_left_is_removed(tmp_path):
    checkpoints(tmp_path, Memo()).save(at(1), score=scored(1, 0.5))
    for target in ("iteration-00001", "nowhere"):
        (RunFolder(tmp_path).checkpoints / f".best.{target}.aside").symlink_to(target)
    assert checkpoints(tmp_path, Memo()).restore() == at(1)
    assert saved(tmp_path) == ["best", "iteration-00001"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, renamed = set(), []
    fsync, rename = os.fsync, os.rename

    def note(handle):
        synced.add(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def named(source, target, **_):
        renamed.append(set(synced))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", named)
    checkpoints(tmp_path, Memo()).save(at(1), score=None)
    [before] = renamed
    assert {os.path.basename(path) for path in before} >= {"model.safetensors", "state.json", "number", "credit"}
