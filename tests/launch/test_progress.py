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
