"""Gives other programs the metrics of a training while it runs, in a thread per program.

A thread follows the history on the disk, so whatever a program does, the training neither waits for it nor fails. While
a server is away, lines wait in the history. At the end there is one last try; what is not given by then, the end says,
with the reason, and the next start of the training or `agile-ray export` gives it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.tracking.copier import Copier
from agile_ray.record.tracking.curves import Outcome, Program, described_knobs, said
from agile_ray.record.tracking.followed import Followed
from agile_ray.record.tracking.programs import live
from agile_ray.record.tracking.written import Written

LOOK_S = 1.0
"""Time between two looks at the history, seconds."""
RETRY_S = 15.0
"""Time between an error and the next try, seconds."""
END_S, STOP_S = 15.0, 3.0
"""How long the end of a training waits for all programs, seconds; the second where it was asked to stop."""
CHECK_S = 30.0
"""How long a server may take to answer before a training starts, seconds."""
SHOWN_CHARACTERS = 200
"""Length to which an error of a client is cut."""

Say = Callable[[str], None]


def open_programs(forms: Sequence[str], run: RunFolder) -> dict[str, Program]:
    """The programs that a training writes to, each of which answers.

    Args:
        forms: of `PROGRAMS`.
        run: the run's folder; nothing is written there.

    Raises:
        ConfigError: a package is missing, or a server does not answer; names it.
    """
    programs = {form: live(form, run.tracking) for form in dict.fromkeys(forms)}
    for form, program in programs.items():
        _check(form, program)
    return programs


@contextmanager
def tracked(
    config: RunConfig, programs: Mapping[str, Program], *, say: Say, stopping: Callable[[], bool]
) -> Iterator[None]:
    """Give programs what the training in the block records, and then how it has ended.

    Args:
        config: of the run.
        programs: by name, of `open_programs`.
        say: called with a line about a program, also from its thread.
        stopping: whether the training was asked to stop: an error that follows is no failure.

    Raises:
        ConfigError: a file in the folder `tracking` is not readable.
    """
    run = RunFolder.of(config)
    trackers = [Tracker(form, program, config, say=say) for form, program in programs.items()]
    outcome = Outcome.STOPPED
    try:
        for tracker in trackers:
            tracker.begin()
        yield
        outcome = Outcome.FINISHED if run.is_finished else Outcome.STOPPED
    except Exception:
        outcome = Outcome.STOPPED if stopping() else Outcome.FAILED
        raise
    finally:
        for tracker in trackers:
            tracker.end(outcome)
        end_s = time.monotonic() + (STOP_S if outcome is Outcome.STOPPED else END_S)
        for tracker in trackers:
            tracker.wait(end_s - time.monotonic())


class Tracker:
    """Follows one training for one program."""

    def __init__(self, form: str, program: Program, config: RunConfig, *, say: Say) -> None:
        """Prepare; nothing is written yet.

        Raises:
            ConfigError: what was noted of earlier starts, or the history, can't be read.
        """
        run = RunFolder.of(config)
        self._form = form
        self._program = program
        self._say = say
        self._run = run
        written = self._noted()
        self._followed = Followed(run.history, written, resumes=bool(history.read(run.history)))
        self._copier = Copier(
            program, name=config.run.name, knobs=described_knobs(config), written=written, now_ms=_now_ms
        )
        self._outcome = Outcome.STOPPED
        self._ended = threading.Event()
        self._trouble = ""  # the error of the latest try
        self._lost = False  # it was that a process or a connection of the client is gone
        self._marked = False
        self._thread = threading.Thread(target=self._work, name=f"track-{form}", daemon=True)

    def begin(self) -> None:
        """Start the thread, and say where the curves are.

        Raises:
            OSError: the run's folder can't be written.
        """
        self._run.tracking.mkdir(parents=True, exist_ok=True)
        self._say(f"{self._form}: curves go to {self._program.where}")
        self._thread.start()

    def end(self, outcome: Outcome) -> None:
        """Tell the thread that the training has ended; does not wait."""
        self._outcome = outcome
        self._ended.set()

    def wait(self, limit_s: float) -> None:
        """Wait until the program has everything, and say what it lacks.

        Args:
            limit_s: longest wait, seconds.
        """
        if self._thread.ident is None:
            return
        self._thread.join(max(0.0, limit_s))
        late = self._thread.is_alive()
        why = "no answer in time" if late else self._trouble
        if left := self._left():
            self._say(
                f"{self._form}: {left} lines of the history are not given ({why or 'none was tried'}); a resumed "
                f"training gives the rest, `agile-ray export {self._run} --to {self._form}` all of it anew"
            )
        if why and not self._marked:
            self._say(f"{self._form}: its run is not marked as {self._outcome} ({why})")
        for remark in self._copier.remarks:
            self._say(f"{self._form}: {remark}")
        if self._followed.redone:
            self._say(
                f"{self._form}: lines that were recorded again after a resumption, and keep their earlier values "
                f"there: {self._followed.redone}; the history and TensorBoard have those that count"
            )
        if not late:
            self._followed.close()

    def look(self) -> bool:
        """Give what the history has further; False if the program did not take it, which is said once."""
        return self._tried(lambda: self._copier.copy(self._followed.next))

    def _work(self) -> None:
        self._tried(self._program.prepare)  # while engines start, which takes longer
        wait_s = LOOK_S
        while not self._ended.wait(wait_s):
            wait_s = LOOK_S if self.look() else RETRY_S
        if self.look() or (self._lost and self.look()):  # then the client begins anew
            self._marked = self._mark() or (self._lost and self._mark())
        else:
            with suppress(OSError):  # of the disk; then the next start takes the batch for given
                self._copier.give_up()

    def _mark(self) -> bool:
        try:
            self._copier.end(self._outcome, time_ms=_now_ms())
        except Exception as error:  # noqa: BLE001  said at the end
            self._trouble, self._lost = _cut(error), isinstance(error, ConnectionError)
            return False
        return True

    def _tried(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as error:  # noqa: BLE001  whatever a client raises, the training goes on
            if not self._trouble:
                self._say(f"{self._form}: {_cut(error)}; the training goes on, and this is tried again")
            self._trouble, self._lost = _cut(error), isinstance(error, ConnectionError)
            return False
        if self._trouble:
            self._say(f"{self._form}: {self._program.where} answers again")
        self._trouble = ""
        return True

    def _left(self) -> int:
        """How many lines of the history the program was not given; one that it has not answered may be given."""
        rest = Followed(self._run.history, self._noted())
        left = sum(1 for _ in iter(rest.next, None))
        rest.close()
        return left

    def _noted(self) -> Written:
        return Written(self._run.tracking / f"{self._form}.jsonl", where=self._program.where)


def _check(form: str, program: Program) -> None:
    """Refuse a server that does not answer.

    Raises:
        ConfigError: it does not answer, or refuses; names it.
    """
    found: list[str] = []

    def ask() -> None:
        try:
            program.check()
        except Exception as error:  # noqa: BLE001  said below
            found.append(_cut(error))

    thread = threading.Thread(target=ask, name=f"check-{form}", daemon=True)
    thread.start()
    thread.join(CHECK_S)
    if thread.is_alive():
        found.append(f"no answer in {CHECK_S:g} s")
    if found:
        raise ConfigError(
            f"--track {form}: {program.where} must answer before a training starts, found {found[0]}; start it, mend "
            "its settings in the environment, or leave the option out"
        )


def _cut(error: Exception) -> str:
    text = said(error)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
