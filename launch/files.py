"""Files that are whole or absent."""

import os
from pathlib import Path

from agile_ray.errors import ConfigError


def write_text(path: Path, text: str) -> None:
    """Write a file aside, then rename it; its folder is made.

    Raises:
        ConfigError: the path can't be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except (IsADirectoryError, NotADirectoryError, FileExistsError, PermissionError) as error:
        raise ConfigError(f"{path}: a file can't be written there ({error.strerror})") from error
