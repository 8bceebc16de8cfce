"""Serves the viewer until Ctrl-C."""

import uvicorn

from launch.view.app import application
from launch.view.listening import hosts, listening
from launch.view.runs import Runs


def serve(runs: Runs, *, host: str, port: int) -> None:
    """Print the viewer's address, and answer requests until Ctrl-C.

    Args:
        runs: to show.
        host: address to listen at.
        port: 0: any free one.

    Raises:
        ConfigError: the address can't be listened at.
    """
    with listening(host, port) as (bound, address):
        count = len(runs.names)
        print(f"{address}  shows {count} run{'s' * (count > 1)}; Ctrl-C ends it", flush=True)
        config = uvicorn.Config(
            application(runs, hosts=hosts(host)), log_level="warning", access_log=False, ws="none", lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[bound])
