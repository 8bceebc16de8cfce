"""The shell command of a submitted job. No Ray is started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.cluster import job
from launch.cluster.jobs import within

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
    words = [sys.executable, "-c", SUPERVISOR, str(library), job.entrypoint("train", "submitted.yaml"), str(path)]
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


def test_an_answer_that_is_an_error_is_raised():
    def refuse() -> Path:
        raise ConnectionError("no")

    with pytest.raises(ConnectionError, match="no"):
        within(5, "submit", refuse)
    assert within(5, "submit", lambda: None) is None
