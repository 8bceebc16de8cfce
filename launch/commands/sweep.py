"""`agile-ray sweep`. launch/run/sweep_plan.py describes a sweep's file, launch/sweeps/ how its runs are trained."""

import shlex
from typing import Annotated

import typer

from agile_ray.errors import ConfigError
from launch.commands.jobs.options import OnlyGivenAddress, Track, told
from launch.commands.jobs.submit import PROJECT, EnvVar, Follow, Project, variables


def command(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="Name of a shipped sweep, or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Overrides for every run, except of keys that the sweep varies."),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train up to N runs at once.", show_default="one after the other"),
    ] = None,
    address: OnlyGivenAddress = None,
    retries: Annotated[
        int, typer.Option(min=0, help="How often a run is started again if its machines failed, not its data.")
    ] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print each run as a command and train nothing.")] = False,
    only_table: Annotated[
        bool, typer.Option("--table", help="Show the table of the finished runs and train nothing.")
    ] = False,
    track: Track = None,
    follow: Follow = True,
    env_var: EnvVar = None,
    project: Project = PROJECT,
) -> None:
    """Train several configurations and show them in one table.

    The runs are in runs/SWEEP, with the table as sweep.json; run.folder=FOLDER puts them into FOLDER/SWEEP. Running
    the same command again resumes: finished runs are skipped, those that still run are waited for, and an interrupted
    one continues from its last checkpoint. --table also works while another process trains the sweep.

    Runs that imitate alike share one imitation. A run whose machines failed is started again; one whose data or
    configuration is wrong is reported at the end.

    With --parallel N, up to N runs train at once, each in a process of its own. With --address, the sweep is a job of
    that cluster, and its runs are jobs, too: it goes on without this machine, and the same command again follows it.
    `agile-ray status SWEEP --address URL` shows its runs, `agile-ray stop SWEEP --address URL` ends it.

    A sweep's file names what it starts from and the axes. It may also hold any section of a run's configuration:

    \b
      include: [quickstart]                        shipped configs by name, or paths; the later wins
      loop: {iterations: 10}                       for every run
      grid:                                        every combination is a run
        env.advice_cost: [0.1, 0.3, 0.5]
        seed: [0, 1, 2]
      runs: [[credit.mode=none, run.name=plain]]   further runs, a list of overrides each
      compare: {key: env.advice_cost, to: 0.3}     pair runs that differ by this key alone
      imitation_ignores: [env.advice_cost]         runs that differ by these keys alone share their imitation
      together: true                               without --parallel: one process for all, with shared engines

    \b
    Examples:
      agile-ray sweep prices --dry-run
      agile-ray sweep prices run.folder=/data/runs
      agile-ray sweep prices --parallel 2
      agile-ray sweep prices --parallel 4 --address http://HEAD:8265 run.folder=/mnt/runs model.path=/mnt/models/tiny
      agile-ray sweep prices --table
    """
    chosen = variables(env_var or ())
    from launch.run.shipped_configs import SWEEPS, find
    from launch.run.sweep_plan import plan, read_plan

    path = find(sweep, folder=SWEEPS)
    sheet = read_plan(path)
    jobs = plan(path, sheet, overrides or (), track=track or ())
    if dry_run:
        for job in jobs:
            print(shlex.join(["agile-ray", *job.words]) + ("  # finished" if job.finished else ""))
        return
    if only_table:
        finished = sum(job.finished for job in jobs)
        print(f"{finished} of {len(jobs)} runs are finished")
        if finished:
            from launch.sweeps.sweep import show

            show(path.stem, sheet, jobs)
        return
    if address is not None:
        from launch.sweeps.submitted import submit_sweep

        raise typer.Exit(
            submit_sweep(
                sheet,
                jobs,
                overrides or (),
                address=address,
                project=project,
                parallel=parallel or 1,
                retries=retries,
                follow=follow,
                variables=told(track) | chosen,
            )
        )
    if chosen:
        raise ConfigError(
            "--env-var: it is for the jobs of a cluster: give --address too, or set it before the command"
        )

    from agile_ray.record.folder import RunFolder
    from agile_ray.record.tracking.tracker import open_programs
    from launch.cluster.address import joins
    from launch.run.preflight import check_installed
    from launch.sweeps.sweep import train

    if not all(job.finished or joins(job.config.cluster) for job in jobs):
        check_installed()  # otherwise each run says the same
        open_programs(track or (), RunFolder.of(jobs[0].config))
    train(path.stem, sheet, jobs, parallel=parallel, retries=retries)
