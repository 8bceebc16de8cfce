"""Strikes fake runs: their processes are real, and start in milliseconds."""

import json
from collections import Counter
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from safetensors.numpy import load_file

from agile_ray.errors import AgileError, ContractError
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from tests.chaos.checks import Expected, final_weights
from tests.chaos.fakes import driver, processes
from tests.chaos.processes import Family
from tests.chaos.runs import Bench, Started, Undisturbed
from tests.chaos.trials import Outcome, Trial


class FakeBench(Bench):
    """The folder with fake runs and their logs."""

    poll_s = 0.2
    limit_s = 120.0
    ends_s = 10.0

    def __init__(
        self, folder: Path, *, expert: driver.Expert = "gold", environ: Mapping[str, str] | None = None
    ) -> None:
        """`expert`: as `env.expert`; gold notes its payments. `environ`: of all processes of a run, in addition."""
        super().__init__(folder)
        self._expert, self._environ = expert, dict(environ or {})
        self._deadline_s = driver.DEADLINE_S
        self._forks: ForkServerContext = get_context("forkserver")
        client = ("httpx", "anyio._backends._asyncio")  # of those who ask an inbox
        self._forks.set_forkserver_preload([driver.__name__, "agile_ray.record.tensorboard", *client])

    def prepare(self) -> None:
        """Import everything once, in the process that forks the drivers."""
        first = self._forks.Process(target=int)
        first.start()
        first.join(self.limit_s)

    def play(self, trial: Trial, usual: Undisturbed) -> Outcome:
        """Play a trial; where a process is stopped, the run's deadlines are short."""
        self._deadline_s = driver.STUCK_S if trial.signal == "SIGSTOP" else driver.DEADLINE_S
        return super().play(trial, usual)

    def is_time(self, trial: Trial, usual: Undisturbed, *, since_s: float) -> bool:
        """Whether the expert was paid for that share of what it is paid in a run; the machine may be slow or fast."""
        path, others = (processes.paid(self.run(name)) for name in (trial.name, "undisturbed"))
        return path.exists() and path.stat().st_size >= trial.moment * others.stat().st_size

    def expected(self, usual: Undisturbed) -> Expected:
        """What every run leaves."""
        return Expected(
            iterations=driver.ITERATIONS,
            sessions=driver.ITERATIONS * driver.LANES * driver.SESSIONS,
            max_age=driver.MAX_AGE,
            interval=usual.interval,
        )

    def problems(self, run: RunFolder, usual: Undisturbed) -> list[str]:
        """Every promise that a run breaks which has ended."""
        found = super().problems(run, usual)
        for check in (learned_once, paid_once):
            try:
                check(run)
            except (AgileError, OSError) as error:
                found.append(f"{check.__name__}: {error}")
        return found

    def start(self, name: str) -> tuple[Started, Family]:
        """Start the driver of a run; its output goes on in the run's log."""
        self._log(name).parent.mkdir(parents=True, exist_ok=True)
        process = self._forks.Process(
            target=driver.main,
            args=(name, self.folder / "runs", self._log(name), self._expert, self._environ),
            kwargs={"deadline_s": self._deadline_s},
        )
        process.start()
        assert process.pid is not None
        return _Driver(process), Family(process.pid, compiles_in=self._extensions)


class _Driver:
    """A forked driver, as the bench looks at it."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode


def learned_once(run: RunFolder) -> None:
    """The final weights have learned every segment of the surviving lineage once, and nothing else.

    Raises:
        ContractError: they have not.
    """
    held = load_file(final_weights(run, driver.ITERATIONS))["learned"].tobytes()
    learned = [(key, times) for key, times in json.loads(held)]
    stored = [
        (f"{line['stream']}#{line['position']}#{line['index']}", 1)
        for iteration in run.stored_iterations()
        for line in store.table(run, iteration, ["stream", "position", "index"]).to_pylist()
    ]
    if sorted(learned) != sorted(stored):
        wrong = sorted({*learned} ^ {*stored})[:1]
        raise ContractError(f"{run}: every stored segment is learned once, but not around {wrong}")


def paid_once(run: RunFolder) -> None:
    """What the expert was paid for is what sessions hold receipts of.

    An ask is paid twice only if a process died between the payment and the receipt; a strike ends at most as many asks
    as there are seats.

    Raises:
        ContractError: a payment has no receipt, a receipt no payment, or too many asks were paid twice.
    """
    lines = [line for line in processes.paid(run).read_text().splitlines() if "/train/" in line]
    payments = Counter(lines)
    booked = {
        receipt.key
        for iteration in run.stored_iterations()
        for session in store.outcomes(run, iteration)
        for receipt in (*session.receipts, *session.abandoned)
    }
    twice = payments.total() - len(payments)
    if payments.keys() != booked or twice > driver.ACTORS * driver.SEATS:
        raise ContractError(
            f"{run}: every payment has its receipt, found {len(payments)} asks paid, {twice} of them again, and "
            f"{len(booked)} receipts; not in both: {sorted(payments.keys() ^ booked)[:1]}"
        )
