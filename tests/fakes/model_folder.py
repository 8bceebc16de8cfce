"""A complete model folder without a model: a real tokenizer, and weights of two parameters."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from agile_ray.agent.functions import Function

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
ROWS = 300
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": ROWS,
}
"""Of config.json, where a plan is made for the model."""


def encoder(texts: Iterable[str] = ("the price of a lamp",) * 3) -> Tokenizer:
    """A byte-level BPE of the words of some texts that has every function as a special token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.add_tokens([AddedToken(function.value, special=True, normalized=False) for function in Function])
    return core


def write_tokenizer(folder: Path, core: Tokenizer) -> None:
    """Write what a tokenizer is read from."""
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}}))


def write_model_folder(folder: Path, **config: object) -> Path:
    """Write the folder; `config` is added to config.json."""
    folder.mkdir(parents=True)
    write_tokenizer(folder, encoder())
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    weights = {
        "model.embed_tokens.weight": np.zeros((ROWS, 2), np.float32),
        "model.norm.weight": np.ones(2, np.float32),
    }
    save_file(weights, folder / "model.safetensors")
    return folder
