"""What is kept of an evaluation that is stopped."""

import pickle
import shutil
from dataclasses import replace

import pytest

from agile_ray.agent.lane import LaneState
from agile_ray.agent.memory import HashedEmbedder, Memory
from agile_ray.evaluation.plays import Part
from agile_ray.record import evaluations
from agile_ray.record.evaluations import Measured, PlayedParts
from agile_ray.record.folder import RunFolder
from tests.fakes.parts import START
from tests.fakes.worlds import SESSION, changed

MEMORY = Memory(HashedEmbedder(), capacity=9).snapshot()


def sessions(first, number):
    return tuple(changed(SESSION, position=position) for position in range(first, first + number))


def state(position):
    return LaneState(stream="s", position=position, memory=MEMORY)


def test_parts_of_a_stream_are_joined_and_outlive_the_process(tmp_path):
    folder = tmp_path / "ppo.parts"
    one = PlayedParts(folder)
    one.add(Part(index=3, sessions=sessions(0, 2), state=state(2)))
    one.add(Part(index=0, sessions=sessions(0, 1), state=None))
    one.add(Part(index=3, sessions=sessions(2, 1), state=state(3)))
    for found in (one, PlayedParts(folder)):
        assert found.sessions == 4
        assert found.streams[3].sessions == sessions(0, 3)
        assert found.streams[3].state.position == 3
        assert found.streams[0].state is None


DAMAGES = [
    *(b"", b"\x80\x05", b"no pickle", b"\x80\x04cagile_ray.gone\nGone\n."),
    *(pickle.dumps({"index": 1}), pickle.dumps([1]), b"\x80\x04\x8e" + b"\xff" * 8 + b"."),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stream_whose_file_is_damaged_is_played_again(tmp_path, damage):
    one = PlayedParts(tmp_path)
    for index in range(2):
        one.add(Part(index=index, sessions=sessions(0, 1), state=state(1)))
    (tmp_path / "00001").write_bytes(damage)
    assert list(PlayedParts(tmp_path).streams) == [0]


def test_an_older_copy_of_a_part_is_passed_over(tmp_path):
    one = PlayedParts(tmp_path)
    one.add(Part(index=1, sessions=sessions(0, 1), state=state(1)))
    shutil.copy(tmp_path / "00001", tmp_path / "00001 (1)")
    one.add(Part(index=1, sessions=sessions(1, 2), state=state(3)))
    assert PlayedParts(tmp_path).sessions == 3


def test_parts_that_outlive_the_stored_evaluation_are_deleted(tmp_path):
    run, measured = RunFolder(tmp_path), Measured(state=START, settings={"seed": 7}, schemas=(4, 4))
    assert evaluations.begin(run, "ppo", measured)
    evaluations.keep(run, "ppo", sessions(0, 2))
    PlayedParts(run.evaluation_parts("ppo")).add(Part(index=0, sessions=sessions(0, 1), state=state(1)))
    assert not evaluations.begin(run, "ppo", measured)
    assert not run.evaluation_parts("ppo").exists()


@pytest.mark.parametrize("damage", ["", "[]", '{"state": {}}', None])
def test_an_evaluation_that_another_version_began_is_played_anew(tmp_path, damage):
    run, measured = RunFolder(tmp_path), Measured(state=START, settings={"seed": 7}, schemas=(4, 4))
    evaluations.begin(run, "ppo", replace(measured, schemas=(3, 4)))
    evaluations.keep(run, "ppo", sessions(0, 2))
    if damage is not None:
        run.measured_file("ppo").write_text(damage)
    assert evaluations.begin(run, "ppo", measured)
    assert not evaluations.has(run, "ppo")


def test_what_a_killed_process_left_unfinished_is_deleted(tmp_path):
    PlayedParts(tmp_path).add(Part(index=0, sessions=sessions(0, 1), state=None))
    (tmp_path / ".00001.abcd1234.aside").write_bytes(b"half")
    assert list(PlayedParts(tmp_path).streams) == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["00000"]


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = PlayedParts(None)
    one.add(Part(index=0, sessions=sessions(0, 2), state=None))
    assert (one.sessions, one.keeps, list(tmp_path.iterdir())) == (2, False, [])
