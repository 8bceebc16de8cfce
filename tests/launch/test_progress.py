"""The lines of a run in the terminal."""

import re
import time

from launch.run import progress
from launch.run.progress import Progress


def test_a_long_wait_shows_a_sign_of_life(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SIGN_OF_LIFE_S", 0.05)
    shown = Progress(imitation_steps=1, iterations=1)
    with shown.waiting("still starting; the engines write to /runs/a/logs"):
        time.sleep(0.3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert re.search(r"still starting; the engines write to /runs/a/logs, \d+ s so far$", lines[0])
    time.sleep(0.1)
    assert capsys.readouterr().out == ""


def test_a_bar_says_how_many_sessions_wait_for_an_expert():
    one = Progress(imitation_steps=0, iterations=1)
    with one.bar("collect", 10) as show:
        [task] = one._bars.tasks
        show(3, 7)
        assert (task.completed, task.description) == (3, "collect, 7 wait for an expert")
        show(4)
        assert (task.completed, task.description) == (4, "collect")
