"""Kills and stops random processes of short real runs, and checks that nothing is lost: `make chaos`.

    python -m tests.chaos [--folder runs/chaos] [--seed 0] [--kills 15] [--stops 3] [--only NAME]

FOLDER/table.md, table.json   every trial so far
FOLDER/NAME.json              one trial; delete the file to run it again
FOLDER/logs, FOLDER/runs      what the runs printed and left

The same command goes on with the trials that are missing. Exit code 1: a run broke a promise.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tests.chaos.runs import Bench
from tests.chaos.trials import draw, load, save, table


def arguments(*, folder: Path, kills: int, stops: int) -> argparse.Namespace:
    """Read the command line; what is given here are its defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=folder, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of processes and moments; default: %(default)s")
    parser.add_argument("--kills", type=int, default=kills, help="default: %(default)s")
    parser.add_argument("--stops", type=int, default=stops, help="default: %(default)s, of all but the driver in turn")
    parser.add_argument("--only", help="name of the only trial to run, such as kill-0-03")
    return parser.parse_args()


def main(
    build: Callable[[Path], Bench] = Bench, *, folder: Path = Path("runs/chaos"), kills: int = 15, stops: int = 3
) -> int:
    """Run the trials that are missing; returns the exit code."""
    given = arguments(folder=folder, kills=kills, stops=stops)
    bench = build(given.folder)
    done = {outcome.trial for outcome in load(bench.folder)}
    trials = draw(given.seed, kills=given.kills, stops=given.stops)
    chosen = [trial for trial in trials if trial.name not in done and given.only in (None, trial.name)]
    for trial in chosen:
        print(f"{trial.name}: {trial.signal} to the {trial.role}", flush=True)
        bench.forget(trial.name)  # what a trial has left that was not finished
        outcome = bench.play(trial, bench.undisturbed())
        save(bench.folder, outcome)
        print(f"{trial.name}: {outcome.result}", flush=True)
    outcomes = load(bench.folder)
    print(table(outcomes))
    return 1 if any(outcome.problems for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
