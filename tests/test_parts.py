"""The fakes of the loop's parts, and the real parts that need no engine, keep the same contracts.

FolderCheckpoints has its test in tests/record/test_checkpoints.py, LearnerGroup in tests/integration/test_learner.py.
"""

from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.replay.rollouts import RecordedRollouts
from tests.fakes.parts import FakeCheckpoints, FakeLearners, FakeRecorder, FakeRollouts
from tests.fakes.parts_contract import check_checkpoints, check_learners, check_recorder, check_rollouts
from tests.fakes.stored import FAILED, ONE, REWRITTEN, rows


def test_fake_rollouts_keep_the_contract(tmp_path):
    check_rollouts(FakeRollouts, folder=tmp_path)


def test_recorded_rollouts_keep_the_contract(tmp_path):
    run = RunFolder(tmp_path)
    store.write(run, 1, [ONE, REWRITTEN], rows(ONE, REWRITTEN))
    store.write(run, 2, [FAILED], [])
    check_rollouts(lambda: RecordedRollouts(run), folder=tmp_path)


def test_fake_learners_keep_the_contract():
    check_learners(FakeLearners(), rows(ONE, REWRITTEN))


def test_fake_checkpoints_keep_the_contract():
    check_checkpoints(FakeCheckpoints())


def test_the_fake_recorder_keeps_the_contract():
    check_recorder(FakeRecorder(), sessions=[ONE, FAILED], rows=rows(ONE))


def test_the_run_recorder_keeps_the_contract(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    check_recorder(recorder, sessions=[ONE, FAILED], rows=rows(ONE))
    recorder.close()
