"""Checks before anything starts: the model's folder, the disk, the ports, paths on a cluster.

Reads files, writes nothing, imports no heavy library.
"""

import glob
import json
import os
import shutil
import tempfile
from pathlib import Path

from agile_ray.agent.functions import Function
from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder
from launch.cluster.address import check_port, check_shared, joins, temporary_folder

CHECKPOINT_FACTOR = 8
"""Maximum size of a checkpoint over that of the model's file: weights, float32 master copy, two moments of AdamW."""
NAME_BYTES = 255
"""Maximum length of a name on a disk."""
SPARE_BYTES = 64 << 20
"""For the events, segments and report of a run."""


def check(config: RunConfig) -> None:
    """Refuse a run that can't start.

    Raises:
        ConfigError: names the key, what was found and what to do.
    """
    if joins(config.cluster):
        check_shared(config)
    else:
        temporary_folder()
    check_model(config.model.path, environment=config.env.name)
    check_recorded(config.env.recorded)
    check_port(config.cluster.dashboard_port)
    weights = sum(file.stat().st_size for file in config.model.path.glob("*.safetensors"))
    copies = config.run.keep_checkpoints + 2  # the best on validation, and the one being written
    check_space(config.run.folder, need_bytes=CHECKPOINT_FACTOR * copies * weights + SPARE_BYTES)


def check_model(folder: Path, *, environment: str = "ENV") -> None:
    """Refuse a model folder that is absent, incomplete or without function tokens.

    Args:
        environment: named in the command that the error suggests.

    Raises:
        ConfigError: the folder is one of those.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"model.path: {folder} is no folder; make one as the comment at the top of the config says, with "
            f"`agile-ray model tiny --env {environment} --output {folder}`, or with "
            f"`agile-ray model from FOLDER_OR_ID --output {folder}`"
        )
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(
                f"model.path: {folder} has no {name}; a Hugging Face folder with a fast tokenizer is needed"
            )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(f"model.path: {folder} has no *.safetensors; other formats of weights are not read")
    missing = lacking_functions(folder)
    if missing:
        raise ConfigError(
            f"model.path: the tokenizer of {folder} lacks {len(missing)} of {len(Function)} function tokens "
            f"({missing[0]}, ...); add them with `agile-ray model from {folder} --output {folder}-agile`"
        )


def lacking_functions(folder: Path) -> list[str]:
    """The functions that are not a single special token of the folder's tokenizer.

    Raises:
        ConfigError: tokenizer.json is not a tokenizer.
    """
    try:
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"model.path: {folder / 'tokenizer.json'} is not a tokenizer ({error})") from error
    return [function.value for function in Function if function.value not in special]


def check_engine_path(where: str, folder: Path) -> None:
    """Refuse a model folder whose path vLLM would take for a pattern.

    Args:
        where: the key or option that names it.
        folder: the model's.

    Raises:
        ConfigError: the path has one of the characters [ ] * ?.
    """
    if glob.escape(str(folder)) != str(folder):
        raise ConfigError(
            f"{where}: {folder}: vLLM takes the characters [ ] * ? in a path for patterns; rename the folder, or "
            "give a link to it"
        )


def check_recorded(run: Path | None) -> None:
    """Refuse a recorded run without stored sessions.

    Raises:
        ConfigError: the run has none.
    """
    if run is not None and not RunFolder(run).stored_iterations():
        raise ConfigError(
            f"env.recorded: {RunFolder(run).segments} must hold iterations, found none; "
            "name the folder of a run that has trained"
        )


def check_output(path: Path) -> None:
    """Refuse a path of a file that can't be written. Its folder need not exist.

    Raises:
        ConfigError: the path is a folder, or can't be created.
    """
    longest = max(len(os.fsencode(part)) for part in path.absolute().parts)
    if longest > NAME_BYTES:
        raise ConfigError(f"--output: a name has at most {NAME_BYTES} bytes, found {longest}; choose a shorter one")
    if path.is_dir():
        raise ConfigError(f"--output: {path} is a folder; name a file in it")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return
    except OSError as error:
        raise ConfigError(f"--output: {path} can't be written ({existing}: {error.strerror})") from error


def check_space(folder: Path, *, need_bytes: int) -> None:
    """Refuse a folder whose disk has too little space, or that can't be created.

    Raises:
        ConfigError: the folder is one of those.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise ConfigError(f"run.folder: {existing} is a file; a folder is needed")
    free = shutil.disk_usage(existing).free
    if free < need_bytes:
        raise ConfigError(
            f"run.folder: {folder} has {free >> 20} MiB free, checkpoints of this model may take "
            f"{need_bytes >> 20} MiB; free some, choose another run.folder, or lower run.keep_checkpoints"
        )
