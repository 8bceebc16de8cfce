"""SIGTERM asks a training to stop, and PATIENCE_S later makes it.

first SIGTERM                        the training ends after the step or iteration that it is in, with a checkpoint
PATIENCE_S later, or a second one    KeyboardInterrupt in the main thread, wherever that is; the next start goes on from
                                     the last checkpoint, and books what was bought since as abandoned

Everything on disk is whole or absent at any moment, so the interruption loses no more than the time since the last
checkpoint. It is a KeyboardInterrupt because that is what Ray's waits and asyncio let through.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from agile_ray.record.checkpoints import latest_checkpoint
from agile_ray.record.folder import CheckpointFolder, RunFolder
from launch.run.progress import Progress

EXIT_CODE = 128 + signal.SIGTERM
"""Of a training that SIGTERM ended before it was finished; what a shell reports of a process that SIGTERM killed."""
PATIENCE_S = 6.0
"""Time between SIGTERM and the interruption, seconds. Ending engines and Ray takes most of another ten."""

_SIGNALS = (signal.SIGTERM, signal.SIGALRM)


class Stop:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._saved = False

    def __call__(self) -> bool:
        return self.asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer SIGTERM during the block.

        Raises:
            SystemExit: the block was interrupted; the code is EXIT_CODE.
        """
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.listen()
        try:
            yield
        except KeyboardInterrupt:
            if not self.asked:  # Ctrl-C
                raise
            raise SystemExit(EXIT_CODE) from None
        finally:
            if self.asked:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def saved(self) -> None:
        """Note that the training has ended with a checkpoint and said so; only its machines are left to end."""
        self._saved = True

    def listen(self) -> None:
        """Answer SIGTERM from here on; again, if a library has set a handler of its own, as Ray does."""
        for number in _SIGNALS:
            signal.signal(number, self._answer)

    def _answer(self, *_: object) -> None:
        if not self.asked:
            self.asked = True
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
            return
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # ending the run is not interrupted again
        raise KeyboardInterrupt

    @contextmanager
    def explained(self, run: RunFolder, sft: CheckpointFolder, progress: Progress) -> Iterator[None]:
        """If the block is interrupted, say where the run will resume."""
        try:
            yield
        except KeyboardInterrupt:
            if self.asked and not self._saved:
                latest = latest_checkpoint(run, sft)
                where = "starts over" if latest is None else f"goes on from {latest.folder.path.name}"
                progress.say(f"asked to stop, and interrupted: the same command {where}")
            raise
