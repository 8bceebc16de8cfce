"""Which cluster a run joins, and where a local one keeps its sockets."""

import os
import tempfile

import pytest

from agile_ray.config import Cluster
from agile_ray.errors import ConfigError
from launch.cluster.address import address_of, joins, temporary_folder


@pytest.mark.parametrize(
    ("given", "variable", "found"),
    [
        (None, None, None),
        (None, "", None),
        (None, "  ", None),
        (None, "local", None),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("auto", "", "auto"),
        ("local", "10.0.0.1:6379", None),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
    ],
)
def test_a_run_joins_the_cluster_that_is_named(monkeypatch, given, variable, found):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert address_of(Cluster(address=given)) == found
    assert joins(Cluster(address=given)) == (found is not None)


@pytest.fixture
def temporary(monkeypatch):
    """Set the variable that names the temporary folder."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    return monkeypatch.setenv


def test_sockets_are_in_the_temporary_folder(temporary):
    assert str(temporary_folder()) == "/tmp"
    temporary("TMPDIR", "")
    assert str(temporary_folder()) == "/tmp"
    temporary("RAY_TMPDIR", "/dev/shm")
    assert str(temporary_folder()) == "/dev/shm"


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("letters", [50, 90])
def test_a_temporary_folder_that_is_too_long_for_sockets_is_one_line(temporary, tmp_path, variable, letters):
    folder = f"{tmp_path}/{'ä' * letters}"[: len(str(tmp_path)) + letters]
    os.mkdir(folder)
    temporary(variable, folder)
    with pytest.raises(ConfigError, match=rf"^{variable}: .*: Ray's sockets need a folder of at most \d+ bytes, found"):
        temporary_folder()


def test_a_temporary_folder_that_can_not_be_written_is_one_line(temporary):
    temporary("RAY_TMPDIR", "/proc")
    with pytest.raises(ConfigError, match="RAY_TMPDIR: a folder that can be written is needed"):
        temporary_folder()
