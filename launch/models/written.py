"""Writes the files of a model folder, and tells a folder that `agile-ray model` wrote from any other."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agile_ray.agent.tokenizer import Chat, write_chat
from agile_ray.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RECEIPT = ".agile-ray-model.json"
"""Names the files that the command wrote. Checkpoints leave it out, so the command never replaces one."""


def quiet() -> None:
    """Keep transformers and the hub from writing progress bars into pipes, and warnings that our errors replace."""
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"  # for bars of plain tqdm, which reads it when it is imported
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
        disable_progress_bars()


def save(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path, *, chat: Chat | None = None
) -> None:
    """Write a model and its tokenizer into an empty folder.

    The model's own generation_config is left out but for its tokens: other programs that serve the folder would sample
    by it, unlike the agent, and one that transformers calls invalid could not be saved.

    Args:
        model: the model.
        tokenizer: with the function tokens.
        folder: to write.
        chat: how the model frames a session; None: sessions are plain text.

    Raises:
        ConfigError: the files do not have the parameters by their names in memory.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if chat is not None:
        write_chat(chat, folder)
    _check_names(model, folder)
    names = sorted(file.name for file in folder.iterdir())
    (folder / RECEIPT).write_text(json.dumps({"files": names}, indent=2) + "\n")


def check_replaceable(folder: Path) -> None:
    """Refuse to replace what this command did not write.

    Raises:
        ConfigError: the path is no folder of this command's, or holds other things too.
    """
    if not (folder / RECEIPT).is_file():
        raise ConfigError(
            f"--output {folder}: --force replaces only what `agile-ray model` wrote, and there is no {RECEIPT}; choose "
            "another --output, or delete it yourself"
        )
    known = {*_receipt(folder / RECEIPT), RECEIPT}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known or path.is_dir())
    if others:
        raise ConfigError(
            f"--output {folder}: --force would delete {', '.join(others[:3])}, which `agile-ray model` did not write; "
            "move that elsewhere, or choose another --output"
        )


def is_empty_folder(path: Path) -> bool:
    """Whether the path is a folder without content."""
    return path.is_dir() and not any(path.iterdir())


def _receipt(file: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(file.read_text(encoding="utf-8"))["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--output {file}: must list the files that `agile-ray model` wrote ({error}); delete the folder yourself"
        ) from error


def _check_names(model: "PreTrainedModel", folder: Path) -> None:
    """Refuse a model whose parameters have other names in its files: the learner sends them by those in memory."""
    from rollout.weights.files import weight_shapes

    aliases: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), set()).add(name)
    stored = set(weight_shapes(folder))
    lost = [min(names) for names in aliases.values() if not names & stored]
    unknown = stored.difference(*aliases.values())
    if differing := sorted([*lost, *unknown]):
        raise ConfigError(
            f"model: {len(differing)} weights of a {type(model).__name__} have other names in memory than in its files "
            f"({differing[0]}, ...), so they can't be sent to the engines; choose a model of another family"
        )
