"""A lock on a folder that one process at a time may write into."""

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder, SweepFolder

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
"""Error numbers of disks that have no locks, such as Lustre mounted without flock."""


@contextmanager
def alone(folder: RunFolder | SweepFolder) -> Iterator[None]:
    """Lock a folder during a `with` block, creating it; the lock ends with this process at the latest.

    On a disk without locks, a line on standard error says so, and nothing is locked.

    Raises:
        ConfigError: another process holds the lock, or the folder can't be created or locked.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        file = folder.lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: no folder can be written there ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"{folder}: only one process at a time may train there, and process {file.read() or '?'} does; "
                "wait for it, or choose another run.name or run.folder"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise ConfigError(f"{folder.lock}: it can't be locked ({error.strerror})") from error
            print(
                f"agile-ray: {folder}: this disk has no locks ({error.strerror}); let no second process train there",
                file=sys.stderr,
            )
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        yield
