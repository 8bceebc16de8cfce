"""Files and folders that are whole or absent, and JSON files that are validated."""

import errno
import os

import pytest
from pydantic import TypeAdapter

from agile_ray.errors import ConfigError
from agile_ray.record.json_files import read_json, read_json_lines, write_json
from agile_ray.record.whole import remove_unfinished, whole_file, whole_folder, write_whole
from agile_ray.types import RunState

STATE = TypeAdapter(RunState).validate_json


class Killed(Exception):
    """Stands for the death of the process."""


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_atomically_and_its_folder_is_created(tmp_path):
    path = tmp_path / "deep" / "note"
    write_whole(path, b"one")
    with whole_file(path) as aside:
        aside.write_bytes(b"two")
        assert path.read_bytes() == b"one"
    assert (path.read_bytes(), names(path.parent)) == (b"two", ["note"])


def killed_while_writing_a_file(path):
    with whole_file(path) as aside:
        aside.write_bytes(b"half")
        raise Killed


def killed_while_writing_a_folder(path):
    with whole_folder(path) as aside:
        (aside / "note").write_bytes(b"half")
        raise Killed


def test_a_failed_write_leaves_the_old_content(tmp_path):
    write_whole(tmp_path / "note", b"one")
    with pytest.raises(Killed):
        killed_while_writing_a_file(tmp_path / "note")
    with pytest.raises(Killed):
        killed_while_writing_a_folder(tmp_path / "folder")
    assert names(tmp_path) == ["note"]
    assert (tmp_path / "note").read_bytes() == b"one"


def test_a_link_is_replaced_like_a_file(tmp_path):
    for target in ("a", "b"):
        with whole_file(tmp_path / "best") as aside:
            aside.symlink_to(target)
    assert (tmp_path / "best").readlink().name == "b"


def test_a_folder_is_not_written_over_another(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    with pytest.raises(OSError, match="not empty"), whole_folder(tmp_path / "folder"):
        pass
    assert names(tmp_path) == ["folder"]


def test_a_path_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "note", tmp_path):
        with pytest.raises(ConfigError, match=f"{path}: a file can't be written there"):
            write_whole(path, b"")


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EROFS, ConfigError), (errno.EIO, ConfigError), (errno.EDQUOT, OSError)]
)
def test_a_disk_that_fails_is_one_error_that_names_the_file(tmp_path, monkeypatch, number, error):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error, match=f"{tmp_path}/deep/note") as found:
        write_whole(tmp_path / "deep" / "note", b"1")
    assert os.strerror(number) in str(found.value)
    assert names(tmp_path / "deep") == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_disk_that_can_not_be_waited_for_is_written_all_the_same(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    write_whole(tmp_path / "note", b"1")
    with whole_folder(tmp_path / "folder") as aside:
        (aside / "note").write_bytes(b"2")
    assert ((tmp_path / "note").read_bytes(), (tmp_path / "folder" / "note").read_bytes()) == (b"1", b"2")


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".note.dead.aside").touch()
    (tmp_path / ".folder.dead.aside" / "deep").mkdir(parents=True)
    (tmp_path / ".best.dead.aside").symlink_to("nowhere")
    (tmp_path / "note").touch()
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["note"]
    remove_unfinished(tmp_path / "nowhere")


def test_unexpected_json_is_refused_with_its_key_and_value(tmp_path):
    path = tmp_path / "state.json"
    write_json(path, {"imitation_steps": 1, "iteration": 2, "version": 3})
    assert read_json(path, STATE, expected="a state") == RunState(imitation_steps=1, iteration=2, version=3)
    write_json(path, {"imitation_steps": 1, "iteration": "many " * 99, "version": 3})
    with pytest.raises(ConfigError, match=r"state.json: must be a state, .* found 'many .*\.\.\.' at iteration \("):
        read_json(path, STATE, expected="a state")


def test_json_lines_are_read_up_to_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "states.jsonl"
    assert read_json_lines(path, STATE, expected="a state") == []
    line = b'{"imitation_steps": 1, "iteration": 2, "version": 3}\n'
    path.write_bytes(line + b"\n  \n" + line + b'{"imita')
    assert len(read_json_lines(path, STATE, expected="a state")) == 2
    path.write_bytes(line + b"[]\n")
    with pytest.raises(ConfigError, match=r"states.jsonl:2: must be a state, as this version writes it; found '\[\]'"):
        read_json_lines(path, STATE, expected="a state")
