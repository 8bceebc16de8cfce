"""`agile-ray stop`. launch/cluster/stopping.py describes how a job ends."""

from typing import Annotated

import typer

from launch.commands.jobs.options import Address, Name, dashboard


def command(
    name: Name,
    address: Address = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the jobs to end; 0: not at all.")
    ] = 90.0,
) -> None:
    """Ask a job to end, and wait until it has: a training saves a checkpoint first if it can.

    Of a sweep, its running trainings end too. To go on, give the same `agile-ray submit` or `agile-ray sweep` command
    again.

    \b
    Examples:
      agile-ray stop quickstart --address http://10.0.0.1:8265
      agile-ray stop prices --wait 0 --address http://10.0.0.1:8265
    """
    where = dashboard(address, of="stop")
    from launch.cluster.jobs import Jobs
    from launch.cluster.stopping import stop

    stop(Jobs.at(where), name, wait_s=wait)
