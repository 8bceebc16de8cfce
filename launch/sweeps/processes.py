"""Trains runs of a sweep in processes of this machine. Each starts a Ray cluster of its own."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

from agile_ray.record.folder import RunFolder
from launch.run.sweep_plan import Job
from launch.status.seen import look
from launch.sweeps.scheduler import Ending, Started


class Processes:
    """Starts trainings here."""

    poll_s = 0.2

    def __init__(self, *, apart: bool) -> None:
        """Prepare; nothing is started.

        Args:
            apart: each training prints into a file of its run's folder, not to the terminal.
        """
        self._apart = apart

    def found(self, jobs: Sequence[Job]) -> Mapping[str, Started]:
        """Trainings of these runs that an earlier sweep started, which was killed."""
        running: dict[str, Started] = {}
        for job in jobs:
            seen = look(RunFolder.of(job.config))
            if seen.progress is not None and seen.state == "running":
                with suppress(psutil.NoSuchProcess):
                    running[job.config.run.name] = _Found(psutil.Process(seen.progress.pid))
        return running

    def start(self, job: Job) -> Started:
        """Start a training."""
        print(f"{job.config.run.name}: {shlex.join(['agile-ray', *job.words])}", flush=True)
        words = [sys.executable, "-m", "launch.main", *job.words]
        if not self._apart:
            return _Own(subprocess.Popen(words))
        log = RunFolder.of(job.config).training_log
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{job.config.run.name}: prints into {log}", flush=True)
        with log.open("ab") as file:
            return _Own(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT))


class _Own:
    """A training that this process started."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    @property
    def name(self) -> str:
        return f"process {self._process.pid}"

    def ending(self) -> Ending | None:
        code = self._process.poll()
        return None if code is None else Ending(code=code)

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class _Found:
    """A training that another process started. Nobody can read its exit code."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    @property
    def name(self) -> str:
        return f"process {self._process.pid}"

    def ending(self) -> Ending | None:
        try:
            lives = self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            lives = False
        return None if lives else Ending(code=None)

    def stop(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self._process.terminate()

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self._process.kill()
