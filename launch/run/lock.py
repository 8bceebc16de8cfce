"""Files that are whole or absent, and folders that one process at a time writes into."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agile_ray.errors import ConfigError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder for the length of a `with` block; it is let go with this process, however that ends.

    Raises:
        ConfigError: another process holds it, or it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+", encoding="utf-8")
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise ConfigError(f"{folder}: no folder can be written there ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"{folder}: one process at a time trains there, and process {file.read() or '?'} does; wait for it, or "
                "choose another run.name or run.folder"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        yield
