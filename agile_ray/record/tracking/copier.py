"""Copies lines of a history into a program. Exports and trainings share it."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from agile_ray.record import history
from agile_ray.record.history import Event, Line
from agile_ray.record.tracking.curves import Curves, Entry, Outcome, Program
from agile_ray.record.tracking.written import Written

MOST_VALUES = 1000
"""Values in one batch, about, so that one request takes it."""
Answer = TypeVar("Answer")
IMITATION, PPO = "imitation", "ppo"


class Copier:
    """Gives a program every line once."""

    def __init__(
        self,
        program: Program,
        *,
        name: str,
        knobs: Mapping[str, str],
        written: Written,
        now_ms: Callable[[], int],
    ) -> None:
        """Prepare; nothing is opened before there is a line for it.

        Args:
            program: to give lines to.
            name: of the training.
            knobs: of its configuration, by dotted key.
            written: what the program was given before.
            now_ms: when a line was recorded that is taken now, milliseconds since 1970.
        """
        self.remarks: list[str] = []  # what is left to do by hand of runs that were ended
        self._program = program
        self._name = name
        self._knobs = knobs
        self._written = written
        self._now_ms = now_ms
        self._open: dict[str, Curves] = {}
        self._places: dict[str, str] = {}
        self._lasting: set[str] = set()  # parts whose run is not marked as ended
        self._taken: list[Line] = []  # of the next batch
        self._entries: list[Entry] = []  # of the batch that is noted, and perhaps not sent
        self._ahead: Line | None = None  # the first line that is in no batch
        self._past_imitation = False

    def copy(self, take: Callable[[], Line | None]) -> None:
        """Give the program every further line; after an error, the same call goes on where it failed.

        Args:
            take: returns the next line; None: there is none yet.
        """
        while self._entries or self._gather(take):
            self._end_imitation()
            part = part_of(self._taken[0])
            if not self._entries:
                first = self._written.size(part)
                self._written.note(part, self._curves(part).id, self._taken)
                self._entries = [
                    Entry(index=first + index, time_ms=self._now_ms(), scalars=history.scalars(line))
                    for index, line in enumerate(self._taken)
                ]
            self._asked(part, lambda curves: curves.add(self._entries))
            self._entries, self._taken = [], []

    def give_up(self) -> None:
        """Forget the batch that the program refused, so that the next start of the training gives it again."""
        if self._entries:
            self._written.undo()

    def places(self) -> Iterator[tuple[str, str]]:
        """Name and place of each of the program's runs that was opened."""
        for part, place in self._places.items():
            yield f"{self._name}/{part}", place

    def end(self, outcome: Outcome, *, time_ms: int) -> None:
        """Mark the program's runs as ended that are not yet; after an error, the same call goes on where it failed."""
        for part in sorted(self._lasting):
            self._end(part, outcome, time_ms=time_ms)

    def _end_imitation(self) -> None:
        """Mark imitation as finished once what follows it has begun."""
        if self._past_imitation and part_of(self._taken[0]) != IMITATION and IMITATION in self._lasting:
            self._end(IMITATION, Outcome.FINISHED, time_ms=self._now_ms())

    def _end(self, part: str, outcome: Outcome, *, time_ms: int) -> None:
        if remark := self._asked(part, lambda curves: curves.end(outcome, time_ms=time_ms)):
            self.remarks.append(remark)
        self._lasting.discard(part)
        del self._open[part]

    def _gather(self, take: Callable[[], Line | None]) -> bool:
        """Take lines of one part for the next batch; whether there are any."""
        values = sum(map(_values, self._taken))
        while (line := self._ahead or take()) is not None:
            self._ahead = line
            if self._taken and (part_of(line) != part_of(self._taken[0]) or values + _values(line) > MOST_VALUES):
                break
            self._taken.append(line)
            self._ahead = None
            self._past_imitation |= line.event in (Event.ITERATION, Event.EVALUATION)
            values += _values(line)
        return bool(self._taken)

    def _asked(self, part: str, call: Callable[[Curves], Answer]) -> Answer:
        """Call a part's curves; after an error they are opened anew, as a client may have lost them."""
        try:
            return call(self._curves(part))
        except BaseException:
            self._open.pop(part, None)
            raise

    def _curves(self, part: str) -> Curves:
        if part not in self._open:
            self._open[part] = self._program.open(
                f"{self._name}/{part}", self._knobs, id=self._written.id(part), time_ms=self._now_ms()
            )
            self._places[part] = self._open[part].place
            self._lasting.add(part)
        return self._open[part]


def part_of(line: Line) -> str:
    """Which of the two runs of a program has the line."""
    return IMITATION if line.event is Event.IMITATION else PPO


def _values(line: Line) -> int:
    return len(line.metrics) + len(line.seconds) + len(line.counts)
