"""The fakes of the loop's parts, and the real ones that need no engine, keep the same contracts."""

from agile_ray.record import store
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.replay.rollouts import RecordedRollouts
from tests.fakes.parts import FakeCheckpoints, FakeLearners, FakeRecorder, FakeRollouts
from tests.fakes.parts_contract import check_checkpoints, check_learners, check_recorder, check_rollouts
from tests.fakes.stored import FAILED, ONE, REWRITTEN, Memo, rows


def test_fake_rollouts_keep_the_contract():
    check_rollouts(FakeRollouts)


def test_recorded_rollouts_keep_the_contract(tmp_path):
    run = RunFolder(tmp_path)
    store.write(run, 1, [ONE, REWRITTEN], rows(ONE, REWRITTEN))
    store.write(run, 2, [FAILED], [])
    check_rollouts(lambda: RecordedRollouts(run))


def test_fake_learners_keep_the_contract():
    check_learners(FakeLearners(), rows(ONE, REWRITTEN))


def test_fake_checkpoints_keep_the_contract():
    check_checkpoints(FakeCheckpoints())


def test_folder_checkpoints_keep_the_contract(tmp_path):
    run = RunFolder(tmp_path)
    parts = {"learners": Memo(), "lanes": Memo(), "credit": Memo()}
    check_checkpoints(FolderCheckpoints(run, keep=1, resumed=lambda state: None, sft=run.sft, **parts))


def test_the_fake_recorder_keeps_the_contract():
    check_recorder(FakeRecorder(), sessions=[ONE, FAILED], rows=rows(ONE))


def test_the_run_recorder_keeps_the_contract(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    check_recorder(recorder, sessions=[ONE, FAILED], rows=rows(ONE))
    recorder.close()
