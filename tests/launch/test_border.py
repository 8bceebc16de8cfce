"""What reaches the terminal: one line for an expected end, and output in any encoding."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table

import launch.run.pipeline
from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder
from launch.border import border
from launch.report.console import plain_console
from launch.run.interrupt import resumable
from launch.run.progress import Progress
from tests.conftest import one_line

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("encoding", "text", "found"),
    [
        ("ascii", "total −0.123 – d\xe4ta", "total -0.123 - d\\xe4ta"),
        ("latin-1", "total −0.123 d\xe4ta", "total -0.123 d\xe4ta"),
        ("cp1252", "−1 – 2", "-1 \x96 2"),
        ("utf-8", "a\udce4b", "a\\udce4b"),
    ],
)
def test_what_an_encoding_lacks_is_printed_in_ascii(monkeypatch, encoding, text, found):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict"))
    with pytest.raises(SystemExit), border():
        _print_and_fail(text)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        assert found in stream.buffer.getvalue().decode("latin-1")


def _print_and_fail(text):
    sys.stdout.write(f"{text}\n")
    table = Table()
    table.add_row(text)
    plain_console(width=80).print(table)
    raise ConfigError(text)


def test_a_path_is_printed_as_it_stands(capsys):
    path = "/runs/a [b] [/c] :smile: [bold]x"
    table = Table(title=path)
    table.add_row(path)
    plain_console(width=100).print(table)
    Progress(imitation_steps=1, iterations=1).say(f"run {path}")
    assert capsys.readouterr().out.count(path) == 3


def test_a_name_that_is_too_long_for_a_disk_is_one_line(capsys):
    with pytest.raises(SystemExit) as end, border():
        raise OSError(errno.ENAMETOOLONG, "File name too long", "/d/" + "x" * 300)
    assert end.value.code == 2
    assert "the name is too long" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ((), "nothing is saved yet; the same command starts from the beginning"),
        (("checkpoints/imitation-00200",), "saved up to imitation-00200"),
        (("checkpoints/imitation-00200", "sft"), "saved up to sft"),
        (("sft", "checkpoints/iteration-00009", "checkpoints/iteration-00010"), "saved up to iteration-00010"),
    ],
)
def test_ctrl_c_in_a_training_says_in_one_line_what_is_saved_and_how_to_go_on(call, monkeypatch, tmp_path, made, said):
    for name in made:
        (tmp_path / "r" / name / "resume").mkdir(parents=True)
        (tmp_path / "r" / name / "resume" / "state.json").write_text("{}")

    def train(config, *, track):
        with resumable(RunFolder.of(config)):
            raise KeyboardInterrupt

    monkeypatch.setattr(launch.run.pipeline, "train", train)
    code, _, err = call("train", "quickstart", f"run.folder={tmp_path}", "run.name=r")
    assert code == 130
    assert said in one_line(err)
    assert "the same command" in err


def test_ctrl_c_anywhere_else_is_one_line(call, monkeypatch):
    def train(_, *, track):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch.run.pipeline, "train", train)
    code, _, err = call("train", "quickstart")
    assert (code, one_line(err)) == (130, "agile-ray: stopped by Ctrl-C")


def test_ctrl_c_in_a_sweep_ends_its_run_and_says_how_to_go_on(tmp_path):
    (tmp_path / "s.yaml").write_text("base: quickstart\nruns: [[seed=1]]\n")
    run = tmp_path / "python"
    run.write_text("#!/bin/sh\nsleep 600 >&2 &\ntrap 'kill $!; exit 1' TERM INT\necho up\nwait\n")
    run.chmod(0o755)
    code = f"import sys; from launch.main import main; sys.executable = {str(run)!r}; main()"
    words = ["sweep", str(tmp_path / "s.yaml"), f"run.folder={tmp_path}"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as leader:
        while leader.stdout.readline() != "up\n":
            assert leader.poll() is None
        time.sleep(0.1)
        os.kill(leader.pid, signal.SIGINT)
        assert leader.wait(timeout=110) == 130
        assert "stopped by Ctrl-C; finished runs are kept; run the same command again to go on" in leader.stderr.read()


@pytest.mark.parametrize("name", ["envs/__init__.py", "rollout.py", "learner/__init__.py"])
def test_a_file_of_the_users_that_shadows_a_package_is_one_line(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; from launch.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "keys"], capture_output=True, text=True, cwd=tmp_path, timeout=110
    )
    assert done.returncode == 2
    assert f"{tmp_path / name.partition('/')[0]}: Python takes it for the package" in one_line(done.stderr)


def test_the_version_is_printed(call):
    code, out, _ = call("--version")
    assert (code, out.split()[0]) == (0, "agile-ray")


def test_a_shell_can_complete_commands():
    environment = os.environ | {
        "_AGILE_RAY_COMPLETE": "complete_bash",
        "COMP_WORDS": "agile-ray rep",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "launch.main"], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=110
    )
    assert done.stdout.split() == ["report", "replay", "reprice"]
