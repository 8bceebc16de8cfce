"""SIGTERM asks a training to stop, and PATIENCE_S later makes it.

first SIGTERM                        the training ends after the step or iteration that it is in, with a checkpoint
PATIENCE_S later, or a second one    KeyboardInterrupt in the main thread, wherever that is; the next start goes on from
                                     the last checkpoint, and books what was bought since as abandoned

Everything on disk is whole or absent at any moment, so the interruption loses no more than the time since the last
checkpoint. It is a KeyboardInterrupt because that is what Ray's waits and asyncio let through.

What ends engines and Ray is not interrupted: a process that leaves a half-ended Ray waits a minute for Ray's head, and
then exits with code 1, without a word. Ending them is bounded (`STOP_S` of rollout/pool.py, `GRACE_S` of the reaper).
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agile_ray.errors import AgileError
from agile_ray.record.checkpoints import latest_checkpoint
from agile_ray.record.folder import CheckpointFolder, RunFolder
from launch.run.progress import Progress

EXIT_CODE = 128 + signal.SIGTERM
"""Of a training that SIGTERM ended before it was finished; what a shell reports of a process that SIGTERM killed."""
PATIENCE_S = 6.0
"""Time between SIGTERM and the interruption, seconds. Ending engines and Ray takes most of another ten."""

ECHO_S = 1.0
"""Time after the first SIGTERM in which another one is the same request, seconds. `timeout` and systemd send it to a
process and to all that it has started, so a run of a sweep gets it twice."""

_SIGNALS = (signal.SIGTERM, signal.SIGALRM)


class Stop:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._asked_s = 0.0
        self._saved = False

    def __call__(self) -> bool:
        return self.asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer SIGTERM during the block; once it came, ignore it after the block too.

        Raises:
            SystemExit: the block was interrupted, or failed after SIGTERM; the code is EXIT_CODE.
        """
        before = {number: signal.signal(number, self._answer) for number in _SIGNALS}
        try:
            yield
        except (KeyboardInterrupt, AgileError):  # an error: whoever sent SIGTERM may have sent it to the engines too
            if not self.asked:  # Ctrl-C
                raise
            raise SystemExit(EXIT_CODE) from None
        finally:
            if self.asked:  # the process ends now, and a further SIGTERM must not change its exit code
                self._let_end()
            else:
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let the block be interrupted, but not what comes after it."""
        try:
            yield
        finally:
            self._let_end()

    def saved(self) -> None:
        """Note that the training has ended with a checkpoint and said so; only its machines are left to end."""
        self._saved = True

    def _answer(self, number: int, _: object) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._asked_s = True, now
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        elif number == signal.SIGALRM or now - self._asked_s > ECHO_S:
            self._let_end()
            raise KeyboardInterrupt

    def _let_end(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def explained(self, run: RunFolder, sft: CheckpointFolder, progress: Progress) -> Iterator[None]:
        """If the block is interrupted, or fails after SIGTERM, say where the run will resume."""
        try:
            yield
        except (KeyboardInterrupt, AgileError) as end:
            failed = isinstance(end, AgileError)
            if self.asked and (failed or not self._saved):
                latest = latest_checkpoint(run, sft)
                where = "starts over" if latest is None else f"goes on from {latest.folder.path.name}"
                why = f"failed ({end})" if failed else "interrupted"
                progress.say(f"asked to stop, and {why}: the same command {where}")
            raise
