"""One process at a time in a run's folder, also on disks that refuse to help."""

import errno
import fcntl
import os

import pytest

from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder, SweepFolder
from launch.run.lock import alone


def refusing(monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("kind", [RunFolder, SweepFolder])
def test_a_disk_without_locks_is_used_and_said_so_once(tmp_path, monkeypatch, capsys, number, kind):
    refusing(monkeypatch, number)
    with alone(kind(tmp_path / "one")) as held:
        assert held is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"agile-ray: {tmp_path / 'one'}: this disk has no locks ({os.strerror(number)})")


def test_a_lock_that_fails_otherwise_is_one_error(tmp_path, monkeypatch):
    refusing(monkeypatch, errno.EIO)
    with (
        pytest.raises(ConfigError, match=r"\.lock: it can't be locked \(Input/output error\)"),
        alone(RunFolder(tmp_path)),
    ):
        pass


def test_a_folder_that_can_not_be_made_is_one_error(tmp_path):
    with pytest.raises(ConfigError, match="no folder can be written there"), alone(RunFolder(tmp_path / ("x" * 300))):
        pass
