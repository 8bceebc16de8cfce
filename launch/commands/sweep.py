"""`agile-ray sweep`. launch/run/sweep_plan.py describes a sweep's file."""

import shlex
from typing import Annotated

import typer


def command(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="Name of a shipped sweep, or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Overrides for every run, except of keys that the sweep varies."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print each run as a command and train nothing.")] = False,
    only_table: Annotated[
        bool, typer.Option("--table", help="Show the table of the finished runs and train nothing.")
    ] = False,
) -> None:
    """Train several configurations and show them in one table.

    The runs are in runs/SWEEP, with the table as sweep.json; run.folder=FOLDER puts them into FOLDER/SWEEP. Running
    the same command again resumes: finished runs are skipped, and an interrupted one continues from its last
    checkpoint. --table also works while another process trains the sweep.

    A sweep's file names what it starts from and the axes. It may also hold any section of a run's configuration:

    \b
      include: [quickstart]                        shipped configs by name, or paths; the later wins
      loop: {iterations: 10}                       for every run
      grid:                                        every combination is a run
        env.advice_cost: [0.1, 0.3, 0.5]
        seed: [0, 1, 2]
      runs: [[credit.mode=none, run.name=plain]]   further runs, a list of overrides each
      compare: {key: env.advice_cost, to: 0.3}     pair runs that differ by this key alone
      together: true                               one process for all: shared engines, shared imitation

    \b
    Examples:
      agile-ray sweep study --dry-run
      agile-ray sweep study run.folder=/data/runs
      agile-ray sweep study --table
    """
    from launch.run.shipped_configs import SWEEPS, find
    from launch.run.sweep_plan import plan, read_plan

    path = find(sweep, folder=SWEEPS)
    sheet = read_plan(path)
    jobs = plan(path, sheet, overrides or ())
    if dry_run:
        for job in jobs:
            print(shlex.join(["agile-ray", *job.words]) + ("  # finished" if job.finished else ""))
        return
    if only_table:
        finished = sum(job.finished for job in jobs)
        print(f"{finished} of {len(jobs)} runs are finished")
        if not finished:
            return

    from launch.run.sweep import show, train

    run = show if only_table else train
    run(path.stem, sheet, jobs)
