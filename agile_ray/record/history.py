"""`history.jsonl`: one line for each imitation step, iteration, evaluation and resumption; what reports read.

Example, shortened:
    {"event": "iteration", "iteration": 3, "metrics": {"total_score": 0.71}, "seconds": {"collect": 31.5}}
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agile_ray.errors import ConfigError
from agile_ray.types import RunState


class Event(StrEnum):
    """What a line tells of."""

    IMITATION = "imitation"
    ITERATION = "iteration"
    EVALUATION = "evaluation"
    RESUME = "resume"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Sessions that were played and not trained on."""

    reason: str  # "failed", "empty" (the policy wrote nothing) or "no_row"
    asked: bool
    tokens_up_to: int  # their length is at most this power of two, and more than half of it
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What happened since the line before."""

    event: Event
    name: str  # of the evaluation; "" elsewhere
    imitation_steps: int  # these three: the run's state after the event
    iteration: int
    version: int
    metrics: dict[str, float]  # by the names in metrics.py
    counts: dict[str, int]  # "ending/cut", "remark/refused", "discarded/rows"
    dropped: tuple[Dropped, ...]
    seconds: dict[str, float]  # wall time by phase

    def follows(self, state: RunState) -> bool:
        """Whether this happened after the state; resumptions are kept, for their counts."""
        later = self.iteration > state.iteration or self.imitation_steps > state.imitation_steps
        return later and self.event is not Event.RESUME


_LINE = TypeAdapter(Line)


def append(path: Path, line: Line) -> None:
    """Add a line and hand it to the operating system."""
    with path.open("ab") as file:
        file.write(_LINE.dump_json(line) + b"\n")


def read(path: Path) -> list[Line]:
    """Every whole line; a last one without its end was cut off by a kill and is left out. [] if there is no file.

    Raises:
        ConfigError: a whole line is not a history line.
    """
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    try:
        return [_LINE.validate_json(text) for text in whole]
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: not a history of this version: {problem['loc']}: {problem['msg']}") from error


def rewrite(path: Path, lines: Sequence[Line]) -> None:
    """Replace the file at once."""
    aside = path.with_name(f".{path.name}.aside")
    aside.write_bytes(b"".join(_LINE.dump_json(line) + b"\n" for line in lines))
    os.replace(aside, path)
