"""What is kept of an evaluation that is stopped."""

import pickle
import shutil
from dataclasses import replace

import pytest

from agile_ray.agent.lane import LaneState
from agile_ray.agent.memory import Entry, HashedEmbedder, Memory
from agile_ray.evaluation.plays import Part
from agile_ray.record import evaluations
from agile_ray.record.evaluations import Measured, PlayedParts
from agile_ray.record.folder import RunFolder
from tests.fakes.parts import START
from tests.fakes.worlds import SESSION, changed

EMPTY = Memory(HashedEmbedder(), capacity=9).change()


def sessions(first, number):
    return tuple(changed(SESSION, position=position) for position in range(first, first + number))


def state(position):
    return LaneState(stream="s", position=position, memory=EMPTY)


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


def played(*counts, folder=None):
    """A stream in parts of so many sessions, each of which writes an entry; session 2 takes back what 0 wrote."""
    parts, memory, since = PlayedParts(folder), Memory(HashedEmbedder(), capacity=99), None
    sizes, position = [], 0
    for count in counts:
        for writer in range(position, position + count):
            text = f"{writer} {'long ' * 200}"
            memory.write(Entry(kind="qa", scope="p", key=str(writer), text=text, writer=writer))
            if writer == 2:
                memory.forget(0)
        part = Part(
            index=3,
            sessions=sessions(position, count),
            state=LaneState(stream="s", position=position + count, memory=memory.change(since)),
        )
        position, since = position + count, memory.moment
        parts.add(part)
        if folder is not None:
            sizes.append(max(path.stat().st_size for path in folder.iterdir() if path.name.endswith(str(len(sizes)))))
    return parts, memory, sizes


def test_the_memory_of_a_stream_is_joined_and_each_part_writes_only_its_own(tmp_path):
    one, memory, sizes = played(20, 1, 1, folder=tmp_path)
    assert max(sizes[1:]) < sizes[0] / 5
    for found in (one, PlayedParts(tmp_path)):
        joined, whole = found.streams[3].state.memory, memory.change()
        assert (joined.whole, joined.entries) == (True, whole.entries)
        assert joined.vectors.tolist() == whole.vectors.tolist()
        assert found.streams[3].state.position == 22
    assert [entry.writer for entry in whole.entries] == [1, *range(2, 22)]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"half"), lambda path: path.unlink()])
def test_of_a_stream_with_a_damaged_part_the_parts_before_it_are_kept(tmp_path, damage):
    played(2, 2, 2, 2, folder=tmp_path)
    damage(tmp_path / "00003.00002")
    kept = PlayedParts(tmp_path)
    assert kept.streams[3].sessions == sessions(0, 4)
    kept.add(Part(index=3, sessions=sessions(4, 1), state=None))
    again = PlayedParts(tmp_path)
    assert (again.streams[3].sessions, again.streams[3].state) == (sessions(0, 5), None)


DAMAGES = [
    *(b"", b"\x80\x05", b"no pickle", b"\x80\x04cagile_ray.gone\nGone\n."),
    *(pickle.dumps({"index": 1}), pickle.dumps([1]), b"\x80\x04\x8e" + b"\xff" * 8 + b"."),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stream_whose_file_is_damaged_is_played_again(tmp_path, damage):
    one = PlayedParts(tmp_path)
    for index in range(2):
        one.add(Part(index=index, sessions=sessions(0, 1), state=state(1)))
    (tmp_path / "00001.00000").write_bytes(damage)
    assert list(PlayedParts(tmp_path).streams) == [0]


@pytest.mark.parametrize("copy", ["00001.00000 (1)", "00001 (1).00000", "00001", "00002.00000"])
def test_a_copy_of_a_part_is_passed_over(tmp_path, copy):
    one = PlayedParts(tmp_path)
    one.add(Part(index=1, sessions=sessions(0, 1), state=state(1)))
    shutil.copy(tmp_path / "00001.00000", tmp_path / copy)
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
    assert [path.name for path in tmp_path.iterdir()] == ["00000.00000"]


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = PlayedParts(None)
    one.add(Part(index=0, sessions=sessions(0, 2), state=None))
    assert (one.sessions, one.keeps, list(tmp_path.iterdir())) == (2, False, [])
