"""Reads a language model with its tokenizer from a GGUF file, into a plain model that transformers saves."""

from pathlib import Path
from typing import TYPE_CHECKING

from agile_ray.errors import ConfigError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import PreTokenizer
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEAD, EMBEDDING = "output.weight", "token_embd.weight"
TIED = 0.1
"""Largest mean distance of head and embeddings, over the embeddings' mean size, that is quantization's alone: 4 to 5
bits make 0.04. Weights that were trained apart are at least 1 apart."""
CONTROL = 3
"""GGUF's type of a token that text never becomes."""


def load_gguf(file: Path, *, name: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a causal language model in float32.

    Many files store a quantized head beside the quantized embeddings of a model that has one matrix for both. Where the
    two differ no more than that explains, the model is tied, with the matrix that was stored in more bits.

    Args:
        name: of the model, which begins the error.

    Raises:
        ConfigError: transformers would split texts otherwise than the model's training did.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    header = GGUFReader(file)
    splitting = _splitting(header, name=name)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if splitting is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = splitting
    _mark_control_tokens(tokenizer, header)
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    state: dict[str, Tensor] = read.state_dict()
    names = {id(parameter): key for key, parameter in read.named_parameters()}
    head, embedding = (
        names.get(id(layer.get_parameter("weight"))) if layer is not None else None
        for layer in (read.get_output_embeddings(), read.get_input_embeddings())
    )
    del read
    if head and embedding and head != embedding and _equal_but_for_quantization(state[head], state[embedding]):
        bits = {tensor.name: tensor.n_bytes for tensor in header.tensors if tensor.name in (HEAD, EMBEDDING)}
        kept = state.pop(head)
        if bits.get(HEAD, 0) > bits.get(EMBEDDING, 0):
            state[embedding] = kept
        config.tie_word_embeddings = True
    # transformers does not save a model that was read from GGUF, so its weights move into a plain one
    vars(config).pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    lacking = model.load_state_dict(state, strict=False).missing_keys
    if others := [key for key in lacking if not (config.tie_word_embeddings and key == head)]:
        raise ConfigError(f"{name}: {len(others)} weights of a causal language model are missing ({others[0]}, ...)")
    model.tie_weights()
    return model.eval(), tokenizer


def _splitting(header: "GGUFReader", *, name: str) -> "PreTokenizer | None":
    """How the model's training split texts before it merged bytes; None where transformers splits them so itself.

    transformers ignores what the file says about it.

    Raises:
        ConfigError: the file names a way that is not known here.
    """
    from tokenizers import pre_tokenizers

    field = header.get_field("tokenizer.ggml.pre")
    said = "" if field is None else str(field.contents())
    if said in ("", "default", "qwen2"):
        return None
    if said == "smollm":
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    raise ConfigError(
        f"{name}: its tokenizer splits texts as {said!r} does, known are qwen2 and smollm; give the model's Hugging "
        "Face folder or id"
    )


def _mark_control_tokens(tokenizer: "PreTrainedTokenizerBase", header: "GGUFReader") -> None:
    """Make the file's control tokens special; transformers does so with some of them only."""
    from tokenizers import AddedToken

    tokens, kinds = header.get_field("tokenizer.ggml.tokens"), header.get_field("tokenizer.ggml.token_type")
    if tokens is None or kinds is None:
        return
    controls = [str(tokens.contents(at)) for at, kind in enumerate(kinds.contents()) if kind == CONTROL]
    added = [AddedToken(token, special=True, normalized=False) for token in controls]
    tokenizer.add_tokens(added, special_tokens=True)  # pyright: ignore[reportArgumentType]  # accepts this class


def _equal_but_for_quantization(head: "Tensor", embedding: "Tensor") -> bool:
    if head.shape != embedding.shape:
        return False
    return float((head - embedding).abs().mean()) < TIED * float(embedding.abs().mean())
