"""Writes files and folders that are whole or absent, whenever the process is killed or the power fails.

Content is first written to a hidden name in the same folder, such as `.report.json.1f3a9c02.aside`, passed to the disk
(fsync), and then renamed. `remove_unfinished` deletes what a killed process left under such names.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agile_ray.errors import FULL, ConfigError

NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EISDIR})
"""Error numbers of disks that can't open a folder, or can't pass it to the disk."""

LONGEST_SHOWN = 200
"""Bytes of a name above which the hidden name does not repeat it: a disk takes 255 bytes."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, replacing an existing one; its folder is created.

    Raises:
        ConfigError: the path can't be written.
    """
    with whole_file(path) as aside:
        aside.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path to write a file (or link) to; at the end of the block it replaces `path`.

    Raises:
        ConfigError: the path can't be written.
        OSError: the disk is full; names the path.
    """
    aside = _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            if not aside.is_symlink():
                _to_disk(aside)
            os.replace(aside, path)
            _to_disk(path.parent)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise ConfigError(f"{path}: a file can't be written there ({error.strerror or error})") from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; at the end of the block it is renamed to `path`.

    Raises:
        OSError: `path` is a folder that is not empty, or a file; or the disk is full.
    """
    aside = _aside(path)
    aside.mkdir(parents=True)
    try:
        yield aside
        for inside in aside.rglob("*"):
            if not inside.is_symlink():
                _to_disk(inside)
        _to_disk(aside)
        aside.rename(path)
        _to_disk(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it if that is on another disk, or on one without hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left unfinished directly in a folder, if the folder exists."""
    for aside in folder.glob(".*.aside"):
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink()


def _aside(path: Path) -> Path:
    name = path.name if len(os.fsencode(path.name)) <= LONGEST_SHOWN else "long"
    return path.with_name(f".{name}.{uuid.uuid4().hex[:8]}.aside")


def _to_disk(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
