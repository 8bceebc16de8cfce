"""`agile-ray logs`."""

from typing import Annotated

import typer

from launch.commands.jobs.options import Address, Name, dashboard


def command(
    name: Name,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends, then exit with its code.")
    ] = False,
) -> None:
    """Print what a job has printed: of a run, its training; of a sweep, which run started and ended when.

    Of several jobs of one name, the one that has not ended is meant, or else the latest. Ctrl-C ends the following;
    the job goes on.

    \b
    Examples:
      agile-ray logs quickstart --address http://10.0.0.1:8265
      agile-ray logs quickstart --follow --address http://10.0.0.1:8265
    """
    where = dashboard(address, of="logs")
    from launch.cluster.jobs import Jobs, latest

    jobs = Jobs.at(where)
    job = latest(jobs.all(), name)
    if follow:
        from launch.cluster.job import followed

        raise typer.Exit(followed(jobs, job.id, job.run))
    print(jobs.log(job.id), end="")
