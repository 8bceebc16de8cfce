"""The lines of a run in the terminal."""

import re
import threading
import time

from launch.run import progress
from launch.run.progress import Progress


def test_a_long_wait_shows_a_sign_of_life(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SIGN_OF_LIFE_S", 0.05)
    shown = Progress(imitation_steps=1, iterations=1)
    said, end = "", time.monotonic() + 60
    with shown.waiting("still starting; the engines write to /runs/a/logs"):
        while said.count("\n") < 2 and time.monotonic() < end:
            time.sleep(0.01)
            said += capsys.readouterr().out
        monkeypatch.setattr(progress, "SIGN_OF_LIFE_S", 60.0)  # time for the last line
    assert re.search(r"still starting; the engines write to /runs/a/logs, \d+ s so far$", said.splitlines()[1])
    assert "sign-of-life" not in {thread.name for thread in threading.enumerate()}


def test_a_bar_says_how_many_sessions_wait_for_an_expert():
    one = Progress(imitation_steps=0, iterations=1)
    with one.bar("collect", 10) as show:
        [task] = one._bars.tasks
        show(3, 7)
        assert (task.completed, task.description) == (3, "collect, 7 wait for an expert")
        show(4)
        assert (task.completed, task.description) == (4, "collect")
