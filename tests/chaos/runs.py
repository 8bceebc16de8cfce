"""Runs the tiny training, undisturbed or struck once, and examines what it leaves."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from tests.chaos.checks import Expected, final_weights, problems, score
from tests.chaos.processes import Family, Role, environment
from tests.chaos.trials import Outcome, Trial
from tests.integration.conftest import ITERATIONS, LANES, OVERRIDES, SESSIONS

ROOT = Path(__file__).resolve().parents[2]
TRAINING = (sys.executable, "-m", "launch.main", "train")
LIMIT_S = 1500.0
"""Longest time of one start of the command, seconds; a run that takes longer hangs."""
DEADLINE_S = 60
"""`cluster.deadline_s` of every run, so that who is stopped is missed soon."""
STARTS = 3
"""Times that the same command is run until the run is finished."""
NAMES_ITSELF = re.compile(r"deadline|within [\d.]+ s|longer than")
"""What the error of a deadline says."""
REPLACED = "is replaced: "
"""What the line says that answers the loss of a rollout actor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """What every disturbed run is compared with."""

    ready_s: float  # until every process was there
    wall_s: float
    total: float
    interval: tuple[float, float]  # of the total, from the run's own report


class Started(Protocol):
    """The process of a run's driver."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...  # the exit code, as `subprocess.Popen` gives it; None: it runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """When and where a process was struck."""

    at_s: float
    during: str


class Bench:
    """The folder with the model, the runs and their logs."""

    poll_s = 0.25
    limit_s = LIMIT_S
    ends_s = 60.0
    """Longest time in which everything that a run has started must be gone."""

    def __init__(self, folder: Path, *, training: Sequence[str] = TRAINING) -> None:
        """`training`: command that takes a config and overrides."""
        self.folder = folder.absolute()
        self._training = tuple(training)
        self._extensions = self.folder / "extensions"
        self._extensions.mkdir(parents=True, exist_ok=True)

    def run(self, name: str) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.folder / "runs" / name)

    def forget(self, name: str) -> None:
        """Delete a run and its log."""
        shutil.rmtree(self.run(name).path, ignore_errors=True)
        self._log(name).unlink(missing_ok=True)

    def undisturbed(self) -> Undisturbed:
        """Make the model and the run that nobody disturbs, or read what an earlier start has measured."""
        kept = self.folder / "undisturbed.json"
        if kept.exists():
            found = json.loads(kept.read_text())
            return Undisturbed(**found | {"interval": tuple(found["interval"])})
        self.prepare()
        begin, ready_s = time.monotonic(), 0.0
        process, family = self.start("undisturbed")
        while process.poll() is None and time.monotonic() - begin < self.limit_s:
            family.look()
            if not ready_s and all(family.members(role) for role in Role):
                ready_s = time.monotonic() - begin
            time.sleep(self.poll_s)
        wall_s, run = time.monotonic() - begin, self.run("undisturbed")
        if process.poll() != 0 or not ready_s:
            family.end()
            raise RuntimeError(f"the undisturbed run must finish, see {self._log('undisturbed')}")
        low, high = json.loads(run.report.read_text())["ppo"]["ci95"]
        found = Undisturbed(ready_s=ready_s, wall_s=wall_s, total=score(run), interval=(low, high))
        kept.write_text(json.dumps(asdict(found)) + "\n")
        return found

    def prepare(self) -> None:
        """Make what every run needs."""
        if not (self.folder / "model" / "config.json").exists():
            words = ["model", "tiny", "--hidden", "64", "--layers", "1", "--output", str(self.folder / "model")]
            subprocess.run([sys.executable, "-m", "launch.main", *words], cwd=ROOT, check=True, timeout=LIMIT_S)

    def expected(self, usual: Undisturbed) -> Expected:
        """What every run leaves."""
        return Expected(iterations=ITERATIONS, sessions=LANES * SESSIONS * ITERATIONS, interval=usual.interval)

    def problems(self, run: RunFolder, usual: Undisturbed) -> list[str]:
        """Every promise that a run breaks which has ended."""
        return problems(run, self.expected(usual))

    def is_time(self, trial: Trial, usual: Undisturbed, *, since_s: float) -> bool:
        """Whether a trial's moment has come, so long after the start of its run."""
        first_s = 0.0 if trial.role is Role.DRIVER else usual.ready_s
        return since_s >= first_s + trial.moment * (usual.wall_s - first_s)

    def play(self, trial: Trial, usual: Undisturbed) -> Outcome:
        """Run the command, strike once, run it again until the run is finished, and examine it."""
        begin, codes, found, said = time.monotonic(), list[int](), list[str](), ""
        struck: Struck | None = None
        for start in range(STARTS):
            process, family = self.start(trial.name)
            if start == 0:
                struck = self._strike(trial, usual, process, family)
            code = self._wait(process, family)
            if code is None:
                found.append(f"start {start + 1} took longer than {self.limit_s:g} s")
                break
            codes.append(code)
            found += [f"after start {start + 1}: {one}" for one in family.left(within_s=self.ends_s)]
            if start == 0:
                printed = self._log(trial.name).read_text(errors="replace").strip().splitlines()
                said = printed[-1][:500] if printed else ""
                found += answer_problems(trial, code=code, printed=printed, struck=struck is not None)
            if code == 0:
                break
        run, iterations = self.run(trial.name), self.expected(usual).iterations
        found += self.problems(run, usual)
        weights, others = (final_weights(one, iterations) for one in (run, self.run("undisturbed")))
        return Outcome(
            trial=trial.name,
            role=trial.role,
            signal=trial.signal,
            at_s=struck.at_s if struck else 0.0,
            during=struck.during if struck else "",
            codes=tuple(codes),
            said=said,
            seconds=time.monotonic() - begin,
            sessions=trained(run),
            total=score(run) if run.is_finished else 0.0,
            same_weights=weights.exists() and weights.read_bytes() == others.read_bytes(),
            problems=tuple(found),
        )

    def start(self, name: str) -> tuple[Started, Family]:
        """Start the command of a run; its output goes on in the run's log."""
        overrides = (*OVERRIDES, f"cluster.deadline_s={DEADLINE_S}", f"run.name={name}")
        where = (f"model.path={self.folder / 'model'}", f"run.folder={self.folder / 'runs'}")
        words = [*self._training, "quickstart", *overrides, *where]
        self._log(name).parent.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("ab") as log:
            process = subprocess.Popen(words, cwd=ROOT, env=environment(ROOT, self._extensions), stdout=log, stderr=log)
        return process, Family(process.pid, compiles_in=self._extensions)

    def _strike(self, trial: Trial, usual: Undisturbed, process: Started, family: Family) -> Struck | None:
        """Wait for the moment and for a process of the role, and send it the signal; None if the run ended before."""
        begin = time.monotonic()
        while process.poll() is None and time.monotonic() - begin < self.limit_s:
            family.look()
            there = family.members(trial.role)
            if there and self.is_time(trial, usual, since_s=time.monotonic() - begin):
                there[-1].send_signal(trial.number)
                return Struck(at_s=time.monotonic() - begin, during=self._during(trial.name))
            time.sleep(self.poll_s)
        return None

    def _wait(self, process: Started, family: Family) -> int | None:
        begin = time.monotonic()
        while (code := process.poll()) is None:
            family.look()
            if time.monotonic() - begin > self.limit_s:
                family.end()
                return None
            time.sleep(self.poll_s)
        return code

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _during(self, name: str) -> str:
        path = self.run(name).history
        lines = history.read(path) if path.exists() else []
        return describe(lines[-1]) if lines else "start"


def answer_problems(trial: Trial, *, code: int, printed: Sequence[str], struck: bool) -> list[str]:
    """What is wrong with how the command answered a strike.

    Args:
        code: its exit code.
        printed: every line that it printed.
        struck: whether the signal was sent before the run ended.
    """
    if not struck:
        return ["the run ended before the moment"]
    if trial.role is Role.DRIVER:
        return [] if code == -trial.number else [f"a killed driver exits with {-trial.number}, found {code}"]
    said = printed[-1] if printed else ""
    if code and not said.startswith("agile-ray: "):
        return [f"an error is one line of agile-ray, found {said!r}"]
    answers = [line for line in printed if REPLACED in line] + [said] * bool(code)
    wrong = [line for line in answers if not NAMES_ITSELF.search(line)]
    if trial.signal == "SIGSTOP" and wrong:
        return [f"a hang is answered by a deadline that names itself, found {wrong[0]!r}"]
    return []


def describe(line: history.Line) -> str:
    """The last event of a history, as a cell."""
    done = line.imitation_steps if line.event is history.Event.IMITATION else line.iteration
    return f"after {line.name or line.event} {done}"


def trained(run: RunFolder) -> int:
    """Sessions in a run's history that were trained on, however the run ended."""
    lines = history.read(run.history)
    return sum(int(line.metrics["sessions"]) for line in lines if line.event is history.Event.ITERATION)
