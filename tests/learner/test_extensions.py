"""Compiling: where, by one process at a time, and after a process that was killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils import cpp_extension

from agile_ray.errors import ConfigError, DeadlineError
from learner.compiler import lock
from learner.compiler.folder import KEY, choose_folder
from learner.compiler.lock import Baton, compile_alone

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from learner.compiler.lock import Baton
Baton(sys.argv[1]).try_acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock `tmp_path/lock`."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_whose_owner_was_killed_is_taken(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    baton = Baton(str(tmp_path / "lock"))
    assert baton.try_acquire()
    baton.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_torch_left_is_taken(tmp_path):
    (tmp_path / "lock").touch()
    assert Baton(str(tmp_path / "lock")).try_acquire()


def test_the_compilers_of_a_killed_owner_are_ended(tmp_path, holder):
    ninja, editor = tmp_path / "ninja", tmp_path / "editor"
    for program in (ninja, editor):
        shutil.copy(shutil.which("sleep"), program)
    left, other = (subprocess.Popen([program, "600"], cwd=tmp_path) for program in (ninja, editor))
    try:
        holder.kill()
        holder.wait()
        assert Baton(str(tmp_path / "lock")).try_acquire()
        assert left.wait(timeout=60) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        left.kill()
        other.kill()
        left.wait()
        other.wait()


def test_a_lock_whose_owner_lives_is_waited_for_and_then_named(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(lock, "BUILD_S", 0.3)
    begin = time.monotonic()
    with pytest.raises(DeadlineError, match=rf"{tmp_path}/lock: another process has been compiling .* set {KEY}"):
        Baton(str(tmp_path / "lock")).try_acquire()
    assert time.monotonic() - begin > 0.3


def test_torch_compiles_under_the_lock(monkeypatch, tmp_path):
    monkeypatch.setattr(cpp_extension, "FileBaton", cpp_extension.FileBaton)  # restored after the test
    monkeypatch.setenv(KEY, "unset")
    monkeypatch.setenv("PATH", "/usr/bin")
    compile_alone(tmp_path)
    assert cpp_extension.FileBaton is Baton
    assert os.environ[KEY] == str(tmp_path)
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"


def read_only(monkeypatch, *folders):
    """Let these folders, and all in them, be what can not be written; the superuser may write anywhere else."""
    access = os.access

    def allowed(path, mode):
        return access(path, mode) and not any(Path(path).is_relative_to(folder) for folder in folders)

    monkeypatch.setattr(os, "access", allowed)


def test_the_environment_holds_the_extensions_where_it_can(monkeypatch, tmp_path):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    assert choose_folder() == tmp_path / "env" / "torch_extensions"


def test_a_read_only_environment_compiles_in_the_cache_each_in_its_own_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = set()
    for name in ("one", "two"):
        monkeypatch.setattr(sys, "prefix", str(tmp_path / name))
        read_only(monkeypatch, tmp_path / "one", tmp_path / "two")
        found.add(choose_folder())
    assert len(found) == 2
    assert all(folder.is_relative_to(tmp_path / "cache") and folder.is_dir() for folder in found)


def test_without_any_folder_the_error_names_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setattr(sys, "prefix", "/proc/neither")
    with pytest.raises(ConfigError, match=rf"/proc/neither/torch_extensions, /proc/none/.*; set {KEY} to one"):
        choose_folder()
    monkeypatch.setenv(KEY, "/proc/chosen")
    with pytest.raises(ConfigError, match=r"found none that can be written among /proc/chosen; set"):
        choose_folder()
