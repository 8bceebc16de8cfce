"""Owns an inbox and serves it until Ctrl-C."""

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from agile_ray.errors import ConfigError
from agile_ray.inbox.line import TOKEN
from launch.inbox.app import Changes, application
from launch.inbox.notify import webhook
from launch.inbox.queue import FILE, Queue
from launch.inbox.token import token
from launch.view.listening import hosts, listening


def serve(folder: Path, *, host: str, port: int) -> None:
    """Print the inbox's address, and answer requests until Ctrl-C.

    Args:
        folder: of the inbox; made if it is missing.
        host: address to listen at.
        port: 0: any free one.

    Raises:
        ConfigError: the folder can't be made, the address can't be listened at, or another process serves the inbox.
    """
    os.umask(0o077)  # asks, answers and the token are their owner's, also in a folder that others may look into
    with listening(host, port) as (bound, address), owned(folder):
        secret = token(folder)
        allow_connections()
        queue = Queue(folder / FILE)
        count = queue.counts()["open"]
        place = TOKEN if os.environ.get(TOKEN) else folder / "token"
        print(f"{address}  {count} asks wait; the token is in {place}", flush=True)
        changes = Changes()
        config = uvicorn.Config(
            application(queue, changes, token=secret, hosts=hosts(host), webhook=webhook()),
            log_level="warning",
            access_log=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=2,
        )
        Server(config, changes).run(sockets=[bound])
        queue.close()


class Server(uvicorn.Server):
    """Answers the requests that wait before it ends, instead of breaking them off."""

    def __init__(self, config: uvicorn.Config, changes: Changes) -> None:
        super().__init__(config)
        self._changes = changes

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; called on Ctrl-C."""
        self._changes.wake_all()
        await super().shutdown(sockets)


def allow_connections() -> None:
    """Let this process have as many connections as it may: processes that ask have some, and so do the people."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems refuse to lift the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Make the folder of an inbox, and be the only process that serves it; the lock ends with the process.

    Raises:
        ConfigError: the folder can't be made, or another process serves it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "lock").touch()
    except OSError as error:
        raise ConfigError(f"{folder}: can't be the folder of an inbox ({error.strerror}); choose another") from error
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{folder}: one process serves an inbox, and another one does already") from error
        yield
