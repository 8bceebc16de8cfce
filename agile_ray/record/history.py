"""`history.jsonl`: one line for each imitation step, iteration, evaluation and resumption. Reports read it.

Example, shortened:
    {"event": "iteration", "iteration": 3, "metrics": {"total_score": 0.71}, "seconds": {"collect": 31.5}}
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter

from agile_ray.record.json_files import parse_json, read_json_lines
from agile_ray.record.whole import write_whole
from agile_ray.types import RunState

FAILED = "failed/"
"""Start of the name of a count of failed sessions; what follows is their reason."""

FLEET = "fleet/"
"""Start of the name of a count of what happened to engines and learner ranks. A resumption has those before it."""


class Event(StrEnum):
    """What a line records."""

    IMITATION = "imitation"
    ITERATION = "iteration"
    EVALUATION = "evaluation"
    RESUME = "resume"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Number of sessions that were played and not trained on, for one reason, length and way of asking."""

    reason: str  # "failed", "empty" (the policy wrote nothing) or "no_row"
    asked: bool
    tokens_up_to: int  # a power of two; lengths are at most this and more than half of it
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event of a run."""

    event: Event
    name: str  # of the evaluation; "" for other events
    imitation_steps: (
        int  # this and the next two: state of the run after the event; of an evaluation, its weights' state
    )
    iteration: int
    version: int
    metrics: dict[str, float]  # by the names in metrics.py
    counts: dict[str, int]  # "ending/cut", "remark/refused", "failed/REASON", "discarded/rows"
    dropped: tuple[Dropped, ...]
    seconds: dict[str, float]  # wall time since the previous line, by phase

    def follows(self, state: RunState) -> bool:
        """Whether resuming from the state discards this line; resumptions stay, because their counts add up."""
        own = RunState(imitation_steps=self.imitation_steps, iteration=self.iteration, version=self.version)
        return own.follows(state) and self.event is not Event.RESUME


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalars:
    """What programs that draw curves are given of a line: each value by its name, at one step."""

    imitation: bool  # the step is an optimizer step of imitation; else an iteration of PPO
    step: int
    values: dict[str, float]  # "iteration/total_score", "validation/accuracy", "seconds/collect", "counts/ending/cut"


def scalars(line: Line) -> Scalars:
    """Name the values of a line. Counts of failed sessions are left out: a reason is a sentence, which is no name."""
    imitation = line.event is Event.IMITATION
    values = {f"{line.name or line.event}/{name}": value for name, value in line.metrics.items()}
    values |= {f"seconds/{phase}": value for phase, value in line.seconds.items()}
    values |= {f"counts/{name}": value for name, value in line.counts.items() if not name.startswith(FAILED)}
    return Scalars(imitation=imitation, step=line.imitation_steps if imitation else line.iteration, values=values)


_LINE = TypeAdapter(Line)
EXPECTED = "a history line"
"""What errors say that a line must be."""


def append(path: Path, line: Line) -> None:
    """Add a line and pass it to the disk, because a checkpoint that follows says that it is there."""
    with path.open("ab", buffering=0) as file:
        file.write(_LINE.dump_json(line) + b"\n")
        os.fsync(file)


def read(path: Path) -> list[Line]:
    """Every complete line; [] if the file does not exist. A last line that was cut off is left out.

    Raises:
        ConfigError: a complete line is not a history line.
    """
    return read_json_lines(path, _LINE.validate_json, expected=EXPECTED)


def parse(content: bytes, *, where: str) -> Line:
    """Read one complete line.

    Raises:
        ConfigError: it is not a history line.
    """
    return parse_json(content, _LINE.validate_json, where=where, expected=EXPECTED)


def rewrite(path: Path, lines: Sequence[Line]) -> None:
    """Replace the whole file."""
    write_whole(path, b"".join(_LINE.dump_json(line) + b"\n" for line in lines))
