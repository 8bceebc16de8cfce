"""Serves the viewer until Ctrl-C."""

import ipaddress
import socket

import uvicorn

from agile_ray.errors import ConfigError
from launch.view.app import LOOPBACK, application
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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"--host, --port: an address that is free here, found {host}:{port} ({error.strerror}); try --port 0"
            ) from error
        bound: int = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        count = len(runs.names)
        print(f"http://{shown}:{bound}/  shows {count} run{'s' * (count > 1)}; Ctrl-C ends it", flush=True)
        config = uvicorn.Config(
            application(runs, hosts=hosts(host)), log_level="warning", access_log=False, ws="none", lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listening])


def hosts(host: str) -> list[str]:
    """Names under which a viewer that listens at an address may be asked for; any, if other machines can reach it."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return [*LOOPBACK, f"[{host}]" if ":" in host else host] if local else ["*"]
