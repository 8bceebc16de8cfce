"""A submitted job: its shell command, and the deadlines of the dashboard's answers. No Ray is started."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agile_ray.errors import ConfigError, DeadlineError
from launch.cluster import job
from launch.commands.submit import _variables
from launch.run.shipped_configs import read

SUPERVISOR = """
import mmap, subprocess, sys
library = open(sys.argv[1], "rb")
kept = mmap.mmap(library.fileno(), 0, prot=mmap.PROT_READ)
raise SystemExit(subprocess.run(sys.argv[2], shell=True, env={"PATH": sys.argv[3]}).returncode)
"""


def environment(folder, *, library="lib/python3.11/site-packages/ray/_raylet.so", python=True):
    """An environment with a Ray to map, and a Python that says where it is and what it was asked."""
    (folder / library).parent.mkdir(parents=True)
    (folder / library).write_bytes(b"library")
    if python:
        (folder / "bin").mkdir()
        (folder / "bin" / "python").write_text(f'#!/bin/sh\necho "{folder}: $*"\nexit 7\n')
        (folder / "bin" / "python").chmod(0o755)
    return folder / library


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A PATH that has what a system has, and no Python."""
    folder = tmp_path_factory.mktemp("tools")
    for name in ("sh", "sed", "head"):
        os.symlink(shutil.which(name), folder / name)
    return folder


def submitted(library, path):
    """Run the job's command as a child of a process that has mapped Ray's library."""
    words = [sys.executable, "-c", SUPERVISOR, str(library), job.ENTRYPOINT, str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "library",
    [
        "lib/python3.11/site-packages/ray/_raylet.so",
        "lib64/python3.13/dist-packages/ray/_raylet.cpython-313-x86_64-linux-gnu.so",
    ],
)
@pytest.mark.parametrize("name", ["venv", "with a space"])
def test_a_job_runs_by_the_python_of_rays_own_environment(tmp_path, tools, name, library):
    folder = tmp_path / name
    done = submitted(environment(folder, library=library), tools)
    assert done.stdout == f"{folder}: -m launch.main train submitted.yaml\n"
    assert done.returncode == 7, done.stderr


def test_a_job_falls_back_to_the_python_on_the_path(tmp_path, tools):
    library = environment(tmp_path / "bare", python=False)
    environment(tmp_path / "active")
    done = submitted(library, f"{tmp_path / 'active' / 'bin'}:{tools}")
    assert done.stdout.startswith(f"{tmp_path / 'active'}: -m launch.main")


def test_a_job_without_any_python_says_what_to_do(tmp_path, tools):
    done = submitted(environment(tmp_path / "bare", python=False), tools)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("agile-ray: submit: no python in the environment of Ray")


def test_an_answer_that_does_not_come_ends_by_a_named_deadline():
    begin = time.monotonic()
    with pytest.raises(DeadlineError, match=r"^--address http://x: connecting took longer than 0\.2 s"):
        job._within(0.2, "--address http://x: connecting", lambda: threading.Event().wait(30))
    assert time.monotonic() - begin < 5


def test_an_answer_that_is_an_error_is_raised():
    def refuse() -> Path:
        raise ConnectionError("no")

    with pytest.raises(ConnectionError, match="no"):
        job._within(5, "submit", refuse)
    assert job._within(5, "submit", lambda: None) is None


def test_all_processes_of_a_job_get_its_environment_variables(monkeypatch):
    sent = {}

    class Client:
        def submit_job(self, **words):
            sent.update(words)
            return "job-1"

    monkeypatch.setattr(job, "_connect", lambda _: Client())
    monkeypatch.setattr(job, "install", lambda _, package: package.mkdir())
    config = read("shop")
    assert job.submit(config, address="a", project=Path(), follow=False, variables={"HF_HOME": "/mnt/a=b"}) == 0
    assert sent["runtime_env"]["env_vars"] == {"HF_HOME": "/mnt/a=b"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["HF_HOME"], "must be NAME=VALUE, such as HF_HOME=/mnt/hf, found HF_HOME"),
        (["2X=1"], "found 2X=1"),
        (["A=1", "A=2"], "--env-var A: given twice"),
    ],
)
def test_a_variable_that_is_none_is_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        _variables(given)


def test_variables_may_be_empty_and_may_contain_an_equals_sign():
    assert _variables(["A=", "B=c=d"]) == {"A": "", "B": "c=d"}
