"""Stands for a training: the processes of one, and a finished run's folder if none of them is disturbed.

    python -m tests.chaos.fake_training quickstart run.name=NAME run.folder=FOLDER ...

If a process is killed or stopped, it says so in one line and fails, and the next start finishes the run.
"""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from agile_ray.record.folder import RunFolder
from tests.chaos.checks import final_weights
from tests.chaos.processes import TITLES
from tests.chaos.test_checks import record
from tests.integration.conftest import ITERATIONS, LANES, SESSIONS

PLAYS_S = 2.0
DEADLINE_S = 0.5


def main(words: list[str]) -> int:
    """Run; returns the exit code."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    run = RunFolder(Path(given["run.folder"]) / given["run.name"])
    parts = {title: subprocess.Popen(["bash", "-c", f"exec -a {title} sleep 30"]) for title in TITLES}
    try:
        if fault := _fault(parts):
            print(f"agile-ray: {fault}", flush=True)
            return 1
    finally:
        for part in parts.values():
            part.kill()
            part.wait(10)
    record(run, iterations=ITERATIONS, each=LANES * SESSIONS)
    weights = final_weights(run, ITERATIONS)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    return 0


def _fault(parts: "dict[str, subprocess.Popen[bytes]]") -> str | None:
    end = time.monotonic() + PLAYS_S
    while time.monotonic() < end:
        for title, part in parts.items():
            if part.poll() is not None:
                return f"{title} died"
            if psutil.Process(part.pid).status() == psutil.STATUS_STOPPED:
                time.sleep(DEADLINE_S)
                return f"{title} must answer within {DEADLINE_S} s, and did not"
        time.sleep(0.05)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
