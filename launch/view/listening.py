"""The address at which a page of this machine is served."""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from agile_ray.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine."""


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that is bound to an address, and the address of the page that is served there.

    Args:
        host: address to listen at.
        port: 0: any free one.

    Raises:
        ConfigError: the address can't be listened at.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"--host, --port: an address that is free here, found {host}:{port} ({error.strerror}); try --port 0"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        yield bound, f"http://{shown}:{bound.getsockname()[1]}/"


def hosts(host: str) -> list[str]:
    """Names under which a viewer that listens at an address may be asked for; any, if other machines can reach it."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return [*LOOPBACK, f"[{host}]" if ":" in host else host] if local else ["*"]
