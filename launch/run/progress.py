"""What a run shows: a bar for each long step and a line for each result in the terminal, and `progress.json`."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from agile_ray.errors import described
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from launch.report.console import plain_console
from launch.status.progress_file import ProgressFile, State

if TYPE_CHECKING:
    from rollout.pool import Show

IMITATION_LINES = 10
"""Number of lines printed during imitation; TensorBoard has every step."""

SIGN_OF_LIFE_S = 20.0
"""Time between two lines of a long wait, seconds."""


class Progress:
    """Prints lines, on a terminal shows bars too, and keeps the run's `progress.json` up to date."""

    def __init__(self, *, imitation_steps: int, iterations: int, run: RunFolder | None = None) -> None:
        """Prepare the display; nothing is shown yet.

        Args:
            imitation_steps: estimated number of optimizer steps of imitation, which spaces their lines.
            iterations: number of iterations of PPO, shown in their lines.
            run: folder of the run that this process trains; None: nothing is written.
        """
        self._console = plain_console(soft_wrap=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._iterations = iterations
        self._every = max(1, imitation_steps // IMITATION_LINES)
        self._start = time.monotonic()
        self._imitated = 0
        self._run = run
        self._file = None if run is None else ProgressFile(run, iterations=iterations)

    def __enter__(self) -> Self:
        self._bars.start()
        if self._file is not None:
            self._file.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if self._file is not None and self._run is not None:
            if isinstance(error, Exception):
                self._file.end(State.FAILED, described(error))
            else:
                self._file.end(State.FINISHED if self._run.is_finished else State.STOPPED)

    def phase(self, name: str) -> None:
        """Note that a phase begins."""
        if self._file is not None:
            self._file.phase(name)

    def say(self, *parts: str | Text) -> None:
        """Print a line that begins with the minutes since the start."""
        minutes = f"{(time.monotonic() - self._start) / 60:5.1f} min"
        self._console.print(Text.assemble((minutes, "dim"), "  ", *parts), highlight=False)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Print a line about every `SIGN_OF_LIFE_S` seconds during the block: the text and how long it has taken."""
        begin, ended = time.monotonic(), threading.Event()

        def say() -> None:
            while not ended.wait(SIGN_OF_LIFE_S):
                self.say(f"{text}, {time.monotonic() - begin:.0f} s so far")

        thread = threading.Thread(target=say, name="sign-of-life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(SIGN_OF_LIFE_S)  # it ends once it has printed its line

    @contextmanager
    def bar(self, title: str, total: int) -> "Iterator[Show]":
        """Show a bar during the block; call the yielded function with the number of finished units."""
        task = self._bars.add_task(title, total=total)

        def show(done: int, asking: int = 0, /) -> None:
            waits = f"{title}, {asking} wait for an expert" if asking else title
            self._bars.update(task, completed=done, description=waits)
            if self._file is not None:
                self._file.count(done, total)

        try:
            yield show
        finally:
            self._bars.remove_task(task)

    def line(self, metrics: Mapping[str, str | int | float]) -> None:
        """Print a recorded line: every iteration and evaluation, and some steps of imitation."""
        if self._file is not None:
            _note(self._file, metrics)
        match metrics["event"]:
            case Event.IMITATION:
                self._imitated += 1
                if self._imitated % self._every == 0:
                    self.say(
                        f"imitation  step {self._imitated}  loss {metrics['loss']:.3f}  "
                        f"{metrics['tokens_per_second']:.0f} tokens/s"
                    )
            case Event.ITERATION:
                self.say(
                    f"iteration {metrics['iteration']}/{self._iterations}  ",
                    _scores(metrics),
                    f"  kl {metrics['kl_nats']:.4f}  {metrics['sessions_per_second']:.0f} sessions/s  "
                    f"{metrics['tokens_per_second']:.0f} tokens/s",
                    _failed(metrics),
                )
            case Event.EVALUATION:
                self.say(
                    f"evaluation {metrics['name']}  ",
                    _scores(metrics),
                    f"  on {metrics['sessions']:.0f} sessions",
                    _failed(metrics),
                )
            case _:
                pass


def _note(file: ProgressFile, metrics: Mapping[str, str | int | float]) -> None:
    match metrics["event"]:
        case Event.IMITATION:
            file.step(metrics)
        case Event.ITERATION:
            file.iteration(int(metrics["iteration"]), metrics)
        case Event.EVALUATION if metrics["name"] == "validation":
            file.validated(float(metrics["total_score"]))
        case Event.RESUME:
            file.resumed(int(metrics["iteration"]))
        case _:
            pass


def _scores(metrics: Mapping[str, str | int | float]) -> Text:
    return Text.assemble(
        "total ",
        (f"{metrics['total_score']:.3f}", "bold"),
        f"  asked {metrics['asked_share']:.3f}  accuracy {metrics['accuracy']:.3f}",
    )


def _failed(metrics: Mapping[str, str | int | float]) -> Text:
    """The number of failed sessions and their commonest reason; empty if none failed."""
    if not metrics.get("failed"):
        return Text()
    return Text.assemble("  ", (f"{metrics['failed']:.0f} failed", "bold"), f": {metrics.get('reason', '')}")
