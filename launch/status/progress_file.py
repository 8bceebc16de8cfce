"""`progress.json`: where a training is, for scripts that poll it and for `agile-ray status`.

The file is written whole at each change of phase, after each iteration, and every WRITE_S seconds in between while
something is counted. A killed process leaves it as it was: `agile-ray status` finds out that the process is gone.

Example, shortened:
    {"state": "running", "stage": "ppo", "done": 7, "total": 28, "phase": "collect", "phase_done": 120, "left_s": 512.0,
     "metrics": {"total_score": 0.86, "asked_share": 0.3}, "host": "node-3", "pid": 4711}
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

import psutil
from pydantic import TypeAdapter

from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import parse_json
from agile_ray.record.whole import write_whole

WRITE_S = 5.0
"""Shortest time between two writes while something is counted, seconds."""
SCHEMA = 1
SHOWN = ("total_score", "asked_share", "accuracy", "failed", "sessions_per_second", "tokens_per_second", "sync_seconds")
"""Metrics of the latest iteration, or step of imitation, that the file repeats."""


class State(StrEnum):
    """How a training goes, as its own process last said."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"  # by SIGTERM or Ctrl-C; the same command resumes
    FAILED = "failed"


Stage = Literal["start", "teacher", "imitation", "ppo", "evaluation"]
STAGES: Mapping[str, Stage] = {
    "teach": "teacher",
    "imitate": "imitation",
    "spread": "ppo",
    "collect": "ppo",
    "score": "ppo",
    "learn": "ppo",
    "publish": "ppo",
    "validate": "ppo",
    "evaluate": "evaluation",
    "references": "evaluation",
}
"""The stage of a training that a phase belongs to. Other phases are part of every stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """Content of the file. Times are UTC, ISO 8601."""

    schema: int = SCHEMA
    run: str
    state: State
    error: str = ""  # of a failed run, one line
    stage: Stage = "start"
    done: int = 0  # of the stage: teacher's sessions, steps of imitation, iterations of PPO, sessions of an evaluation
    total: int = 0  # of the stage; 0: not known
    phase: str = ""  # what is done now, such as "collect"
    phase_done: int = 0
    phase_total: int = 0  # 0: not counted
    started: str  # when this process began
    updated: str
    left_s: float | None = None  # of the stage, at the speed of this process; None: nothing is done yet
    metrics: dict[str, float] = field(default_factory=dict)  # SHOWN, of the latest line
    validation: float | None = None  # total score of the latest validation
    host: str
    pid: int
    process_started: float  # seconds since 1970; tells the process from a later one of the same number


_CONTENT = TypeAdapter(RunProgress)


def read(run: RunFolder) -> RunProgress | None:
    """What a run's folder says; None if it says nothing.

    Raises:
        ConfigError: the file is not one of this version.
    """
    return parse(run.progress.read_bytes(), where=str(run.progress)) if run.progress.is_file() else None


def parse(content: bytes, *, where: str) -> RunProgress:
    """The progress in the content of the file `where`.

    Raises:
        ConfigError: it is not one of this version.
    """
    return parse_json(content, _CONTENT.validate_json, where=where, expected="the progress of a run")


class ProgressFile:
    """Keeps a run's file up to date while its process works."""

    def __init__(self, run: RunFolder, *, iterations: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare; `update` writes.

        Args:
            run: the run's folder.
            iterations: of PPO.
            clock: seconds since any fixed moment.
        """
        self._run = run
        self._clock = clock
        self._iterations = iterations
        self._written_s = float("-inf")
        self._iteration = 0
        self._begun: tuple[float, int] | None = None  # of the stage in this process: when, and how much was done then
        now = _now()
        self._content = RunProgress(
            run=run.name,
            state=State.RUNNING,
            started=now,
            updated=now,
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
        )

    def begin(self) -> None:
        """Write that the process has begun."""
        self._write(phase="start engines and learners")

    def phase(self, name: str) -> None:
        """A phase begins."""
        if name == self._content.phase:
            return
        stage = STAGES.get(name, self._content.stage)
        if stage != self._content.stage:
            ppo = stage == "ppo"
            self._begun = (self._clock(), self._iteration) if ppo else None
            done, total = (self._iteration, self._iterations) if ppo else (0, 0)
            self._content = replace(self._content, stage=stage, done=done, total=total, left_s=None)
        self._write(phase=name, phase_done=0, phase_total=0)

    def count(self, done: int, total: int) -> None:
        """So much of the phase is done; outside of PPO, of the stage too."""
        changed: dict[str, object] = {"phase_done": done, "phase_total": total}
        if self._content.stage != "ppo":
            self._begun = self._begun or (self._clock(), done)
            changed |= {"done": done, "total": total, "left_s": self._left_s(done, total)}
        self._content = replace(self._content, **changed)
        if self._clock() - self._written_s >= WRITE_S:
            self._write()

    def iteration(self, done: int, metrics: Mapping[str, object]) -> None:
        """An iteration of PPO is done."""
        self._iteration = done
        left_s = self._left_s(done, self._iterations)
        self._write(done=done, total=self._iterations, left_s=left_s, metrics=_shown(metrics))

    def step(self, metrics: Mapping[str, object]) -> None:
        """A step of imitation is done; `count` says which."""
        self._content = replace(self._content, metrics=_shown(metrics))

    def resumed(self, iteration: int) -> None:
        """So many iterations were done before this process began."""
        self._iteration = iteration

    def validated(self, total_score: float) -> None:
        """A validation is done."""
        self._write(validation=total_score)

    def end(self, state: State, error: str = "") -> None:
        """The process ends. Of a finished run, all of the last stage is done."""
        if state is State.FINISHED:
            self._content = replace(self._content, done=self._content.total)
        self._write(state=state, error=error, phase="", phase_done=0, phase_total=0, left_s=None)

    def _left_s(self, done: int, total: int) -> float | None:
        if self._begun is None or done <= self._begun[1]:
            return None
        return (self._clock() - self._begun[0]) / (done - self._begun[1]) * max(0, total - done)

    def _write(self, **changed: object) -> None:
        self._content = replace(self._content, **changed, updated=_now())
        self._written_s = self._clock()
        write_whole(self._run.progress, _CONTENT.dump_json(self._content, indent=2) + b"\n")


def _shown(metrics: Mapping[str, object]) -> dict[str, float]:
    return {name: value for name in SHOWN if isinstance(value := metrics.get(name), int | float)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
