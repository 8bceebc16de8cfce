"""The run folder: the names of its files, and how they are written."""

import os
from collections.abc import Iterator
from pathlib import Path

from agile_ray.errors import ConfigError

SEGMENTS = "segments"
"""The folder of a run's segments."""


def stored(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield (iteration, file) of every stored iteration, in order."""
    for path in sorted(folder.glob("iteration-*.parquet")):
        yield int(path.stem.removeprefix("iteration-")), path


def segment_file(folder: Path, iteration: int) -> Path:
    """Where an iteration's segments lie."""
    return folder / f"iteration-{iteration:05d}.parquet"


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
