"""Checks of a model folder from its small files and the headers of its weights. Loads no torch."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from agile_ray.agent.functions import PAPER, Function
from agile_ray.agent.tokenizer import read_chat
from agile_ray.errors import ConfigError
from rollout.control_tokens import as_plain_text, check_encoder, control_tokens
from rollout.settings import check_length
from rollout.weights.files import pointer_hint, read_object, weight_shapes

CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the classes of models end that write text."""
WITHOUT_EFFECT = frozenset({"transformers_version", "dtype", "torch_dtype", "use_cache", "_name_or_path"})
"""Keys of config.json that say nothing about the network, or that this project sets itself."""
SHOWN_KEYS = 3
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")


def check_model(folder: Path, *, session_tokens: int | None = None, colleague: bool = False) -> None:
    """Refuse a model folder that can't serve the agent.

    It must be complete, with the function tokens in its vocabulary, a causal language model without experts, and long
    enough for a session.

    Args:
        session_tokens: of the longest session; None: the length is not checked.
        colleague: [AskColleague] is needed, too.

    Raises:
        ConfigError: says what the folder lacks.
    """
    if not folder.is_dir():
        options = f"--colleague --output {folder}" if colleague else f"--output {folder}"
        raise ConfigError(
            f"model.path: {folder} is no folder; make one with `agile-ray model tiny --config CONFIG {options}` or "
            f"`agile-ray model from FOLDER_OR_ID {options}`; a shipped config may name its command at the top"
        )
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(
                f"model.path: {folder} has no {name}; a Hugging Face folder with a fast tokenizer is needed"
            )
    missing = lacking_functions(folder)
    if missing:
        raise ConfigError(
            f"model.path: the tokenizer of {folder} lacks {len(missing)} of {len(PAPER)} function tokens "
            f"({missing[0]}, ...); add them with `agile-ray model from {folder} --output {folder}-agile`"
        )
    if colleague and lacking_functions(folder, (Function.ASK_COLLEAGUE,)):
        raise ConfigError(
            f"model.path: the tokenizer of {folder} lacks {Function.ASK_COLLEAGUE.value}, by which the colleague of "
            f"env.expert is asked; add it with `agile-ray model from {folder} --colleague --output {folder}-two`"
        )
    check_kind(folder)
    if session_tokens is not None:
        check_length(folder, session_tokens)
    shapes = weight_shapes(folder)
    encoder = read_encoder(folder)
    rows = next((shape[0] for name, shape in shapes.items() if name.endswith(EMBEDDINGS)), None)
    largest = max(encoder.get_vocab(with_added_tokens=True).values())
    if rows is not None and largest >= rows:
        raise ConfigError(
            f"model.path: {folder} has embeddings of {rows} tokens, but its tokenizer has an id of {largest}; "
            f"they are of different models: make the folder again"
        )


def check_kind(folder: Path) -> None:
    """Refuse a config.json that is not readable, or is that of an encoder or a mixture of experts.

    Raises:
        ConfigError: it is one of those.
    """
    config = read_object(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ConfigError(f"model.path: {folder / 'config.json'} names no model_type; it is no model's config.json")
    classes = config.get("architectures")
    named = [str(name) for name in classes] if isinstance(classes, list) else []
    if config.get("is_encoder_decoder") is True or not any(name.endswith(CAUSAL) for name in named):
        raise ConfigError(
            f"model.path: {folder} must be a causal language model, found architectures {', '.join(named) or 'none'}; "
            "choose a model that writes text, such as a Llama or a Qwen"
        )
    check_dense(config, name=f"model.path: {folder}")


def check_dense(config: dict[str, object], *, name: str) -> None:
    """Refuse a mixture of experts: its weights have other names in the learner than in the engines' files.

    Args:
        config: content of config.json.
        name: of the model, which begins the error.

    Raises:
        ConfigError: the model is one.
    """
    if expert := _experts(config):
        raise ConfigError(
            f"{name}: a mixture of experts ({expert}) can't be trained, its weights can't be sent to the engines; "
            "choose a dense model"
        )


def lacking_functions(folder: Path, functions: Sequence[Function] = PAPER) -> list[str]:
    """Those of the functions that are not a single special token of the folder's tokenizer.

    Raises:
        ConfigError: tokenizer.json is not a tokenizer.
    """
    file = folder / "tokenizer.json"
    try:
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"model.path: {file} is not a tokenizer ({error}){pointer_hint(file)}") from error
    return [function.value for function in functions if function.value not in special]


def read_encoder(folder: Path) -> Tokenizer:
    """Read tokenizer.json, and try whether plain text stays apart from control tokens.

    Raises:
        ConfigError: the tokenizer is not readable, or does not keep them apart.
    """
    file = folder / "tokenizer.json"
    try:
        encoder = as_plain_text(Tokenizer.from_file(str(file)))
    except Exception as error:  # the library raises this very class
        raise ConfigError(f"model.path: {file} is not a tokenizer ({error})") from error
    named = named_tokens(folder)
    unknown = named.get("unk_token")
    check_encoder(
        encoder,
        control_tokens(encoder, named=named),
        unknown=None if unknown is None else encoder.token_to_id(unknown),
        name=f"model.path: the tokenizer of {folder}",
    )
    return encoder


def check_same_tokenizer(folder: Path, began: Path) -> None:
    """Refuse a model folder whose tokenizer reads or writes otherwise than the one that a run began with.

    Args:
        folder: of the model.
        began: a checkpoint of the run.

    Raises:
        ConfigError: names the first difference.
    """
    found, expected = _meaning(folder), _meaning(began)
    changed = [part for part, value in expected.items() if found[part] != value]
    if changed:
        raise ConfigError(
            f"model.path: the run began with the tokenizer in {began}, and the one in {folder} has another "
            f"{', '.join(changed)}; put the old model back, or give the run another run.name"
        )


def check_same_network(folder: Path, began: Path) -> None:
    """Refuse a model folder whose config.json describes another network than the one that a run began with.

    Args:
        folder: of the model.
        began: a checkpoint of the run.

    Raises:
        ConfigError: names the first differences.
    """
    found, expected = read_object(folder / "config.json"), read_object(began / "config.json")
    changed = [
        f"{key} {found[key]}, not {value}"
        for key, value in expected.items()
        if key in found and found[key] != value and key not in WITHOUT_EFFECT
    ]
    if changed:
        raise ConfigError(
            f"model.path: the run began with the model in {began}, and the one in {folder} has "
            f"{', '.join(changed[:SHOWN_KEYS])}; put the old model back, or give the run another run.name"
        )


def _meaning(folder: Path) -> dict[str, object]:
    """What decides which ids a text becomes and which text ids become, by part."""
    content = read_object(folder / "tokenizer.json")
    parts = {part: content.get(part) for part in ("model", "added_tokens", "normalizer", "pre_tokenizer", "decoder")}
    named = named_tokens(folder)
    parts["chat frames"] = read_chat(folder)
    return parts | {role: named.get(role) for role in ("bos_token", "eos_token")}


def named_tokens(folder: Path) -> dict[str, str | None]:
    """The tokens that tokenizer_config.json names, by role; {} if there is no such file.

    Raises:
        ConfigError: the file is not readable.
    """
    file = folder / "tokenizer_config.json"
    if not file.exists():
        return {}
    config = read_object(file)
    return {role: _content(config.get(role)) for role in ("bos_token", "eos_token", "unk_token")}


def _experts(config: dict[str, object]) -> str:
    """The first key that names more than one expert, with its value; "" in a dense model."""
    for key, value in config.items():
        if "expert" in str(key) and isinstance(value, int) and value > 1:
            return f"{key} {value}"
        if isinstance(value, dict) and (found := _experts(value)):
            return found
    return ""


def _content(token: object) -> str | None:
    """The text of a token, which is a string or a mapping with its content."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
