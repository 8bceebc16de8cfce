"""Which run of a sweep starts when, and what follows from how it ended.

    waiting      until a place is free, and until a run that imitates alike has trained the imitation that it shares
    running      in a process or a job of its own; found again if an earlier scheduler started it and was killed
    finished     it has its report
    stopped      somebody asked it to end; the next `agile-ray sweep` goes on with it
    failed       its data, its configuration or its task is at fault, or it was started again too often

What is no fault of the run's own is tried again, after a pause that doubles: a process that was killed, a node or an
actor that was lost, a deadline that was missed. The run resumes from its last checkpoint.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from agile_ray.errors import AgileError, ConfigError, DeadlineError, EngineError, LearnerError, SyncError
from agile_ray.record.folder import RunFolder
from launch.border import INTERRUPTED
from launch.run.adoption import adopt, has_begun, imitation_key
from launch.run.sweep_plan import Job
from launch.status.progress_file import State, read

PAUSE_S = 10.0
"""Time before a run is started again for the first time, seconds."""
STOP_S = 60.0
"""Longest wait for trainings that were told to stop, seconds; they take up to 20 (launch/run/stop.py)."""
MACHINES = tuple(error.__name__ for error in (DeadlineError, EngineError, LearnerError, SyncError))
"""Errors of a training that are no fault of its data or configuration."""
WRITTEN_BEFORE = timedelta(seconds=2)
"""How much older than a start the progress of that start may seem: its times are whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a training ended."""

    code: int | None  # exit code; None: unknown, such as of a process on a node that was lost
    asked: bool = False  # somebody asked it to end


class Started(Protocol):
    """A training in a process or a job of its own."""

    @property
    def name(self) -> str:
        """The process or the job."""
        ...

    def ending(self) -> Ending | None:
        """How it ended; None while it runs."""
        ...

    def stop(self) -> None:
        """Ask it to end, and do not wait."""
        ...

    def kill(self) -> None:
        """End it, and do not wait."""
        ...


class Workers(Protocol):
    """What trainings are started with."""

    poll_s: float
    """Time between two looks, seconds."""

    def found(self, jobs: Sequence[Job]) -> Mapping[str, Started]:
        """Trainings of these runs that are running already, by the names of the runs."""
        ...

    def start(self, job: Job) -> Started:
        """Start a training."""
        ...


@dataclass(slots=True, kw_only=True)
class Entry:
    """One run of the sweep."""

    job: Job
    state: str = "waiting"
    error: str = ""  # why it failed, or ended last
    starts: int = 0
    imitation: str = ""  # the run that trained its imitation; "": itself
    started: Started | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))  # of the last start
    not_before_s: float = 0.0

    @property
    def name(self) -> str:
        """The run's name."""
        return self.job.config.run.name


class Scheduler:
    """Trains the runs of a sweep, several at once."""

    def __init__(
        self,
        jobs: Sequence[Job],
        workers: Workers,
        *,
        parallel: int,
        retries: int,
        ignores: Sequence[str] = (),
        changed: Callable[[Sequence[Entry]], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            jobs: the runs, in the order in which they start.
            workers: what starts them.
            parallel: how many run at once.
            retries: how often each run is started again, where what failed is not its own.
            ignores: keys that imitation disregards.
            changed: called with all runs after each change.
            monotonic: seconds since any fixed moment.
            sleep: waits for so many seconds.
        """
        self._entries = [Entry(job=job, state="finished" if job.finished else "waiting") for job in jobs]
        self._workers = workers
        self._parallel = parallel
        self._retries = retries
        self._ignores = ignores
        self._changed = changed
        self._monotonic = monotonic
        self._sleep = sleep
        self._keys = {job.config.run.name: imitation_key(job.config, ignores) for job in jobs}

    def run(self, stopping: Callable[[], bool]) -> list[str]:
        """Train every run that is not finished.

        Args:
            stopping: whether to end; then all trainings are asked to end too, and waited for.

        Returns:
            The runs that failed or were stopped, each with the reason.

        Raises:
            KeyboardInterrupt: Ctrl-C; the trainings have ended.
        """
        found = self._workers.found([entry.job for entry in self._entries if entry.state == "waiting"])
        for entry in self._entries:
            if entry.state == "finished":
                print(f"{entry.name}: finished", flush=True)
            if (started := found.get(entry.name)) is not None:
                entry.state, entry.started = "running", started
                print(f"{entry.name}: runs already, as {started.name}", flush=True)
        self._changed(self._entries)
        try:
            while not stopping():
                settled = self._settle()
                if self._start() or settled:
                    self._changed(self._entries)
                if not (self._running() or self._in("waiting")):
                    break
                self._sleep(self._workers.poll_s)
        except KeyboardInterrupt:
            self._end()
            raise
        if self._running():
            self._end()
        return [f"{entry.name} ({entry.error})" for entry in self._entries if entry.state in ("failed", "stopped")]

    def _in(self, state: str) -> list[Entry]:
        return [entry for entry in self._entries if entry.state == state]

    def _running(self) -> list[Entry]:
        return self._in("running")

    def _settle(self) -> bool:
        """See which trainings have ended."""
        some = False
        for entry in self._running():
            assert entry.started is not None
            if (ending := entry.started.ending()) is not None:
                self._ended(entry, ending)
                some = True
        return some

    def _ended(self, entry: Entry, ending: Ending) -> None:
        entry.started = None
        if entry.job.finished:
            entry.state, entry.error = "finished", ""
            print(f"{entry.name}: finished", flush=True)
            return
        self._judge(entry, *judged(entry, ending))

    def _judge(self, entry: Entry, state: str, why: str) -> None:
        """Note how a run ended, and when it is started again, if it is."""
        entry.state, entry.error = state, why
        if entry.state == "waiting" and entry.starts > self._retries:
            entry.state = "failed"
            entry.error += f", after {entry.starts} starts"
        if entry.state == "waiting":
            pause_s = PAUSE_S * 2 ** max(0, entry.starts - 1)
            entry.not_before_s = self._monotonic() + pause_s
            again = f"; it is started again in {pause_s:.0f} s, {self._retries - entry.starts + 1} tries are left"
            print(f"{entry.name}: {entry.error}{again}", flush=True)
        else:
            print(f"{entry.name}: {entry.state} ({entry.error})", flush=True)

    def _start(self) -> bool:
        """Start as many runs as there are places for."""
        some = False
        while len(self._running()) < self._parallel and (entry := self._next()) is not None:
            if entry.imitation and not entry.starts:
                print(f"{entry.name}: begins with the imitation of {entry.imitation}", flush=True)
            entry.since = datetime.now(UTC)
            entry.starts += 1
            some = True
            try:
                entry.started = self._workers.start(entry.job)
            except ConfigError:
                raise
            except AgileError as error:  # the cluster is busy
                self._judge(entry, "waiting", str(error))
            else:
                entry.state = "running"
        return some

    def _next(self) -> Entry | None:
        """The first run that may start: what it imitates is there, or nobody else is about to train it."""
        configs = [entry.job.config for entry in self._entries]
        now = self._monotonic()
        for entry in self._in("waiting"):
            if entry.not_before_s > now:
                continue
            if has_begun(entry.job.config):
                return entry
            if (donor := adopt(entry.job.config, configs, self._ignores)) is not None:
                entry.imitation = donor
                return entry
            if not self._imitated_elsewhere(entry):
                return entry
        return None

    def _imitated_elsewhere(self, entry: Entry) -> bool:
        """Whether another run is training what this one imitates, or will go on with it."""
        return any(
            self._keys[other.name] == self._keys[entry.name]
            and (other.state == "running" or (other.state == "waiting" and has_begun(other.job.config)))
            for other in self._entries
            if other is not entry
        )

    def _end(self) -> None:
        """Ask all trainings to end, and wait for it; kill what has not ended in time."""
        for entry in self._running():
            assert entry.started is not None
            with suppress(AgileError):  # it has ended, or the cluster is gone
                entry.started.stop()
        begin = self._monotonic()
        while left := self._running():
            for entry in left:
                assert entry.started is not None
                ending = entry.started.ending()
                if ending is None and self._monotonic() - begin > STOP_S:
                    entry.started.kill()
                    ending = Ending(code=None)
                if ending is not None:
                    entry.started = None
                    entry.state = "finished" if entry.job.finished else "waiting"
            if self._running():
                self._sleep(self._workers.poll_s)
        self._changed(self._entries)


def judged(entry: Entry, ending: Ending) -> tuple[str, str]:
    """What becomes of a run that has ended without a report.

    Returns:
        Its state: "failed", "stopped", or "waiting" if it is to be started again; and why it ended, in words.
    """
    code = ending.code
    said = f"exit code {code}" if code is not None else "its process is gone"
    progress = read(RunFolder.of(entry.job.config))
    error = ""
    if (
        progress is not None
        and progress.state is State.FAILED
        and datetime.fromisoformat(progress.updated) >= entry.since - WRITTEN_BEFORE
    ):
        error = progress.error
    if ending.asked or code == INTERRUPTED:
        return "stopped", "asked to end"
    if code in (0, 2) or (code == 1 and not error.startswith(MACHINES)):
        return "failed", f"{error}; {said}" if error else said
    return "waiting", f"{error}; {said}" if error else said
