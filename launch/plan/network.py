"""The sizes of a model, from its config.json: the shape of every parameter, without loading one.

H = hidden size, F = width of the MLP, V = vocabulary, D = size of a head.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agile_ray.agent.functions import Function
from agile_ray.errors import ConfigError
from rollout.weights.files import INDEX, SINGLE, read_object, weight_shapes

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each parameter, by its name in the model's files."""
LLAMAS = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "gemma", "gemma2"})
"""Families whose parameters `shapes` knows. Of others the files of the weights are needed."""
TIED = frozenset({"gemma", "gemma2"})
"""Families whose output head is their embeddings, unless config.json says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The sizes that memory and arithmetic depend on."""

    kind: str  # model_type
    parameters: int
    linear: tuple[tuple[int, int], ...]  # [out, in] of every linear layer but the head: those that LoRA adapts
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool  # the output head is the embeddings
    positions: int | None  # longest context; None: not stated

    def trained(self, lora_rank: int | None) -> int:
        """Parameters of the model that learn: all, or adapters and the function tokens' rows."""
        if lora_rank is None:
            return self.parameters
        rows = len(Function) * self.hidden * (1 if self.tied else 2)
        return rows + sum(lora_rank * (wide + deep) for wide, deep in self.linear)

    def cache_bytes(self, *, each: int) -> int:
        """Bytes that one token takes in an engine's key-value cache, with so many bytes each number."""
        return 2 * self.layers * self.kv_heads * self.head_size * each


def read_network(folder: Path) -> Network:
    """Read a model's sizes. If its weights are there, their headers count the parameters.

    Raises:
        ConfigError: config.json lacks a size; or the family is unknown, and there are no weights.
    """
    config = read_object(folder / "config.json")
    text = config.get("text_config")
    sizes = {**config, **text} if isinstance(text, dict) else config
    kind = str(sizes.get("model_type"))
    has_weights = (folder / SINGLE).is_file() or (folder / INDEX).is_file()
    if not has_weights and kind not in LLAMAS:
        raise ConfigError(
            f"model.path: {folder}: the parameters of a {kind} are counted from its weights, found none; "
            f"without weights only these are known: {', '.join(sorted(LLAMAS))}"
        )
    counted = weight_shapes(folder) if has_weights else shapes(sizes, where=folder)
    heads, hidden = _size(sizes, folder, "num_attention_heads", "n_head"), _size(sizes, folder, "hidden_size", "n_embd")
    vocabulary = _size(sizes, folder, "vocab_size")
    positions = sizes.get("max_position_embeddings")
    return Network(
        kind=kind,
        parameters=sum(math.prod(shape) for shape in counted.values()),
        linear=tuple((shape[0], shape[1]) for shape in counted.values() if len(shape) == 2 and vocabulary not in shape),
        hidden=hidden,
        intermediate=_size(sizes, folder, "intermediate_size", "n_inner", default=4 * hidden),
        layers=_size(sizes, folder, "num_hidden_layers", "n_layer"),
        heads=heads,
        kv_heads=_size(sizes, folder, "num_key_value_heads", default=heads),
        head_size=_size(sizes, folder, "head_dim", default=hidden // heads),
        vocabulary=vocabulary,
        tied="lm_head.weight" not in counted,
        positions=positions if isinstance(positions, int) else None,
    )


def shapes(config: Mapping[str, object], *, where: Path) -> Shapes:
    """The shape of every parameter of a model of LLAMAS.

    Args:
        config: the text part of config.json.
        where: its folder, for errors.

    Raises:
        ConfigError: a size is missing.
    """
    kind = str(config.get("model_type"))
    hidden, wide = _size(config, where, "hidden_size"), _size(config, where, "intermediate_size")
    heads, vocabulary = _size(config, where, "num_attention_heads"), _size(config, where, "vocab_size")
    size = _size(config, where, "head_dim", default=hidden // heads)
    queries, keys = heads * size, _size(config, where, "num_key_value_heads", default=heads) * size
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for number in range(_size(config, where, "num_hidden_layers")):
        layer = f"model.layers.{number}"
        for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            found[f"{layer}.self_attn.{name}.weight"] = (rows, hidden)
            if kind == "qwen2" or config.get("attention_bias") is True:
                found[f"{layer}.self_attn.{name}.bias"] = (rows,)
        found[f"{layer}.self_attn.o_proj.weight"] = (hidden, queries)
        if kind != "qwen2" and config.get("attention_bias") is True:
            found[f"{layer}.self_attn.o_proj.bias"] = (hidden,)
        if kind == "qwen3":
            found[f"{layer}.self_attn.q_norm.weight"] = found[f"{layer}.self_attn.k_norm.weight"] = (size,)
        for name, shape in (("gate_proj", (wide, hidden)), ("up_proj", (wide, hidden)), ("down_proj", (hidden, wide))):
            found[f"{layer}.mlp.{name}.weight"] = shape
            if config.get("mlp_bias") is True:
                found[f"{layer}.mlp.{name}.bias"] = shape[:1]
        for name in _norms(kind):
            found[f"{layer}.{name}.weight"] = (hidden,)
    found["model.norm.weight"] = (hidden,)
    tied = config.get("tie_word_embeddings")
    if not (tied if isinstance(tied, bool) else kind in TIED):
        found["lm_head.weight"] = (vocabulary, hidden)
    return found


def _norms(kind: str) -> tuple[str, ...]:
    both = ("input_layernorm", "post_attention_layernorm")
    return (*both, "pre_feedforward_layernorm", "post_feedforward_layernorm") if kind == "gemma2" else both


def _size(config: Mapping[str, object], where: Path, *names: str, default: int | None = None) -> int:
    for name in names:
        if isinstance(value := config.get(name), int) and value > 0:
            return value
    if default is None:
        raise ConfigError(f"model.path: {where / 'config.json'} must state {names[0]}, found none")
    return default
