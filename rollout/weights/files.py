"""What the weight files of a model folder hold, read from their headers alone. Needs no torch."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from agile_ray.errors import ConfigError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs.github.com/"
"""How a file begins that Git LFS has not downloaded."""


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter in a folder's weight files, by its name there.

    Raises:
        ConfigError: a file is missing, is no safetensors file, or lacks bytes or parameters.
    """
    if not (folder / INDEX).exists():
        if not (folder / SINGLE).exists():
            raise ConfigError(
                f"model.path: {folder} has neither {SINGLE} nor {INDEX}; other formats of weights are not read"
            )
        return _header(folder / SINGLE)
    if (folder / SINGLE).exists():
        raise ConfigError(f"model.path: {folder} holds weights twice, {SINGLE} and those of {INDEX}; delete either")
    return _sharded(folder)


def read_object(file: Path) -> dict[str, object]:
    """Read a JSON file that holds an object.

    Raises:
        ConfigError: it holds anything else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.path: {file} is not readable JSON ({error}){pointer_hint(file)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"model.path: {file} must hold a JSON object, found {type(content).__name__}")
    return content


def pointer_hint(file: Path) -> str:
    """What to do about a file that is a Git LFS pointer; "" for any other."""
    try:
        with file.open("rb") as start:
            is_pointer = start.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return ""
    return "; it is a Git LFS pointer: fetch the file itself with `git lfs pull`" if is_pointer else ""


def _sharded(folder: Path) -> dict[str, tuple[int, ...]]:
    listed = read_object(folder / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise ConfigError(f"model.path: {folder / INDEX} lists no weights in weight_map")
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in sorted({str(name) for name in listed.values()}):
        shapes |= _header(folder / shard)
    lacking = sorted(set(listed) - set(shapes))
    if lacking:
        raise ConfigError(
            f"model.path: {folder / INDEX} lists {len(lacking)} weights that its files lack ({lacking[0]}, ...); "
            "fetch or convert the model again"
        )
    return shapes


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    if not file.is_file():
        raise ConfigError(f"model.path: {file} is missing; fetch or convert the model again")
    try:
        with safe_open(file, framework="np") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"model.path: {file} is no complete safetensors file ({error}){pointer_hint(file)}"
        ) from error
