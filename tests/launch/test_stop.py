"""SIGTERM: a training ends at a boundary, or, without patience, anywhere; its exit code tells that it is unfinished."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

from agile_ray.config import RunConfig
from agile_ray.errors import EngineError, LearnerError
from agile_ray.record.folder import RunFolder
from launch.run import pipeline, replay
from launch.run import stop as stopping
from launch.run.stop import EXIT_CODE, Stop
from tests.fakes.parts import START
from tests.fakes.stored import ONE, rows

LONG_S = 60.0
"""Longest wait for what comes at once, however busy the machine is, seconds."""
BUSY = """
import atexit, sys, time
from launch.run import stop
stop.PATIENCE_S, stop.ECHO_S = float(sys.argv[2]), float(sys.argv[3])
told = stop.Stop()

def say(word):
    print(word, flush=True)

def wait(word):
    say(word)
    sys.stdin.readline()

atexit.register(wait, "ends")  # a signal may come at the very end too

with told.listening():
    try:
        with told.working():
            say("up")
            while not told():
                time.sleep(0.01)
            while sys.argv[1] == "endless":
                say("asked")
                time.sleep(0.01)
            say("boundary")
    finally:
        wait("closes")
        say("closed")
"""


@pytest.fixture(autouse=True)
def own_signals():
    """A process that was asked to stop ignores SIGTERM; the tests' own goes on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def busy(work, *, patience_s=10 * LONG_S, echo_s=0.0):
    """A process that works up to a boundary, or endlessly, and waits for a line when it closes and when it ends."""
    words = [sys.executable, "-c", BUSY, work, str(patience_s), str(echo_s)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, text=True, **pipes) as process:
        try:
            until(process, "up")
            yield process
        finally:
            process.kill()


def until(process, word):
    while (said := process.stdout.readline()) != f"{word}\n":
        assert said, f"ended without {word}"


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


def end(process):
    """Its exit code, and what it says from now on."""
    said = process.communicate("\n\n", timeout=LONG_S)[0]
    return process.returncode, [word for word in said.split() if word != "asked"]


def test_a_boundary_that_comes_in_time_is_waited_for():
    with busy("to a boundary") as process:
        process.send_signal(signal.SIGTERM)
        assert end(process) == (0, ["boundary", "closes", "closed", "ends"])


def test_work_that_takes_longer_is_interrupted_and_cleaned_up_after():
    with busy("endless", patience_s=0.3) as process:
        process.send_signal(signal.SIGTERM)
        assert end(process) == (EXIT_CODE, ["closes", "closed", "ends"])


def test_a_second_signal_needs_no_patience_and_more_do_not_disturb_the_end():
    with busy("endless") as process:
        process.send_signal(signal.SIGTERM)
        until(process, "asked")
        process.send_signal(signal.SIGTERM)
        until(process, "closes")
        process.send_signal(signal.SIGTERM)
        go_on(process)
        until(process, "ends")
        process.send_signal(signal.SIGTERM)
        assert end(process) == (EXIT_CODE, [])


def test_the_same_request_may_come_twice_at_once():
    with busy("to a boundary", echo_s=LONG_S) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert end(process) == (0, ["boundary", "closes", "closed", "ends"])
    with busy("endless", patience_s=1.5, echo_s=LONG_S) as process:
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        until(process, "asked")
        process.send_signal(signal.SIGTERM)
        assert end(process)[0] == EXIT_CODE
        assert time.monotonic() - begin >= 1.5, "the second one is an echo of the first"


def test_what_ends_the_machines_is_not_interrupted():
    with busy("to a boundary") as process:
        process.send_signal(signal.SIGTERM)
        until(process, "closes")
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGTERM):  # also the end of the patience
            process.send_signal(number)
        go_on(process)
        until(process, "ends")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGALRM)
        assert end(process) == (0, [])


def test_ctrl_c_stays_ctrl_c():
    with pytest.raises(KeyboardInterrupt), Stop().listening():
        raise KeyboardInterrupt


class Machines:
    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Trains with machines that are fakes; returns what it said and whether the machines were closed."""
    monkeypatch.setattr(stopping, "ECHO_S", 0.0)
    said, machines = [], Machines()
    progress = SimpleNamespace(say=said.append)
    config = RunConfig.model_validate(
        {"run": {"name": "r", "folder": tmp_path}, "model": {"path": "m"}, "env": {"name": "shop"}}
    )
    monkeypatch.setattr(pipeline, "prepare", lambda _: None)
    monkeypatch.setattr(pipeline, "cluster", lambda *_, **__: nullcontext())
    monkeypatch.setattr(pipeline, "progress_of", lambda _: nullcontext(progress))

    def train(*, run=None, start=lambda *_: machines, track=()):
        monkeypatch.setattr(pipeline, "start", start)
        monkeypatch.setattr(pipeline, "run", run)
        with pytest.raises(SystemExit) as end:
            pipeline.train(config, track=track)
        return end.value.code, said, machines.closed

    return train


def test_what_a_training_is_tracked_by_is_opened_before_it_starts_and_told_how_it_ends(trained, monkeypatch, tmp_path):
    opened, told = [], []
    program = SimpleNamespace(
        where="memory", prepare=lambda: None, check=lambda: opened.append(not (tmp_path / "r").exists())
    )
    monkeypatch.setattr("agile_ray.record.tracking.tracker.live", lambda form, folder: program)
    monkeypatch.setattr("agile_ray.record.tracking.tracker.Tracker.end", lambda self, outcome: told.append(outcome))
    monkeypatch.setattr("agile_ray.record.tracking.tracker.Tracker.wait", lambda *_: None)
    trained(run=lambda *_: term() or False, track=["mlflow"])
    assert (opened, told) == ([True], ["stopped"])


def term(*_):
    signal.raise_signal(signal.SIGTERM)


def test_a_training_that_stops_with_a_checkpoint_is_not_finished(trained):
    code, _, closed = trained(run=lambda *_: term() or False)
    assert (code, closed) == (EXIT_CODE, True)


def test_a_training_that_is_interrupted_says_where_it_resumes(trained):
    code, said, closed = trained(run=lambda *_: (term(), term()))
    assert (code, closed) == (EXIT_CODE, True)
    assert said[-1] == "asked to stop, and interrupted: the same command starts over"


def test_a_training_that_has_stopped_is_not_explained_again_while_its_machines_end(trained):
    machines = SimpleNamespace(close=lambda: term())
    code, said, _ = trained(run=lambda *_: term() or False, start=lambda *_: machines)
    assert code == EXIT_CODE
    assert not [line for line in said if "interrupted" in line]


def test_a_training_is_interrupted_while_its_engines_start(trained):
    code, said, _ = trained(start=lambda *_: (term(), term()))
    assert (code, said[-1]) == (EXIT_CODE, "asked to stop, and interrupted: the same command starts over")


def fail(error):
    raise error


def test_a_training_that_fails_after_sigterm_was_asked_to_stop(trained):
    code, said, closed = trained(run=lambda *_: (term(), fail(LearnerError("a rank died"))))
    assert (code, closed) == (EXIT_CODE, True)
    assert said[-1] == "asked to stop, and failed (a rank died): the same command starts over"


def test_machines_that_fail_to_end_after_sigterm_are_named(trained):
    machines = SimpleNamespace(close=lambda: fail(EngineError("Ray is gone")))
    code, said, _ = trained(run=lambda *_: term() or False, start=lambda *_: machines)
    assert code == EXIT_CODE
    assert said[-1] == "asked to stop, and failed (Ray is gone): the same command starts over"


def test_without_sigterm_an_error_stays_an_error():
    with pytest.raises(LearnerError), Stop().listening():
        fail(LearnerError("a rank died"))


@pytest.mark.parametrize(("done", "ends"), [(1, EXIT_CODE), (2, None)])
def test_a_replay_that_is_told_to_stop_is_finished_only_after_its_last_iteration(monkeypatch, tmp_path, done, ends):
    from agile_ray.record import store

    run, concluded = RunFolder(tmp_path / "run"), []
    for iteration in (1, 2):
        store.write(run, iteration, [ONE], rows(ONE))
    config = RunConfig.model_validate(
        {"run": {"name": "again", "folder": tmp_path}, "model": {"path": "m"}, "env": {"name": "shop"}}
    )
    monkeypatch.setattr(replay, "configure", lambda *_, **__: config)
    monkeypatch.setattr(replay, "cluster", lambda *_, **__: nullcontext())
    monkeypatch.setattr(replay, "reserve", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(replay, "start_learners", lambda *_, **__: SimpleNamespace(shutdown=lambda: None))
    monkeypatch.setattr(replay, "conclude", lambda *_: concluded.append(True))

    def train(*_):
        term()
        return SimpleNamespace(iteration=START.iteration + done)

    monkeypatch.setattr(replay, "_train", train)
    with pytest.raises(SystemExit) if ends else nullcontext() as end:
        replay.replay(run, [], name=None)
    assert (end.value.code if ends else None, bool(concluded)) == (ends, ends is None)
