"""Which process is struck when, from a seed; what came of it; and the table of all trials."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import Signals
from typing import Literal

from tests.chaos.processes import Role

Signal = Literal["SIGKILL", "SIGSTOP"]

TITLES = ("trial", "struck", "with", "at", "during", "exit codes", "seconds", "sessions", "total", "weights", "result")
EARLIEST, LATEST = 0.02, 0.9
"""Moments that are drawn, as shares of the time from when all processes are there to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One disturbance of one run."""

    name: str  # also of its run
    role: Role
    signal: Signal
    moment: float  # share of the undisturbed run's time since its processes were there; of the driver, since its start

    @property
    def number(self) -> Signals:
        """The signal."""
        return Signals[self.signal]


def draw(seed: int, *, kills: int, stops: int) -> list[Trial]:
    """Trials of a seed: kills of random processes, then stops of every kind but the driver in turn."""
    trials: list[Trial] = []
    for number in range(kills):
        chance = random.Random(f"kill {seed} {number}")
        trials.append(_trial(f"kill-{seed}-{number:02d}", chance.choice(list(Role)), "SIGKILL", chance))
    others = [role for role in Role if role is not Role.DRIVER]
    for number in range(stops):
        chance = random.Random(f"stop {seed} {number}")
        trials.append(_trial(f"stop-{seed}-{number:02d}", others[number % len(others)], "SIGSTOP", chance))
    return trials


def _trial(name: str, role: Role, sent: Signal, chance: random.Random) -> Trial:
    return Trial(name=name, role=role, signal=sent, moment=chance.uniform(EARLIEST, LATEST))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a trial."""

    trial: str
    role: str
    signal: str
    at_s: float  # since the start of the run's first process
    during: str  # the last line of its history before
    codes: tuple[int, ...]  # exit codes of the command, each time it was run
    said: str  # the last line of the run that was struck
    seconds: float  # until the run had finished
    sessions: int  # trained on
    total: float
    same_weights: bool  # as the undisturbed run's, bit for bit
    problems: tuple[str, ...]

    @property
    def result(self) -> str:
        """In one cell."""
        return "; ".join(self.problems).replace("|", "/") if self.problems else "as promised"

    def cells(self) -> tuple[str, ...]:
        """The line of the table, in the order of TITLES."""
        codes = ", ".join(map(str, self.codes))
        weights = "same" if self.same_weights else "others"
        return (
            *(self.trial, self.role, self.signal, f"{self.at_s:.0f} s", self.during, codes, f"{self.seconds:.0f}"),
            *(str(self.sessions), f"{self.total:.3f}", weights, self.result),
        )


def save(folder: Path, outcome: Outcome) -> None:
    """Keep an outcome, so that its trial is not run again, and write both tables anew."""
    written = folder / f"{outcome.trial}.json"
    aside = written.with_suffix(".aside")
    aside.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    aside.rename(written)
    outcomes = load(folder)
    (folder / "table.json.aside").write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    (folder / "table.json.aside").rename(folder / "table.json")
    (folder / "table.md").write_text(table(outcomes))


def load(folder: Path) -> list[Outcome]:
    """What is kept, in the order of the trials' names."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*-*-*.json"))]
    return [Outcome(**one | {"codes": tuple(one["codes"]), "problems": tuple(one["problems"])}) for one in found]


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table, and how many runs kept every promise."""
    lines = [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
    lines += [f"| {' | '.join(outcome.cells())} |" for outcome in outcomes]
    kept = sum(not outcome.problems for outcome in outcomes)
    return "\n".join([*lines, "", f"{kept} of {len(outcomes)} runs ended as promised.", ""])
