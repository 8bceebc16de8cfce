import numpy as np
import pytest

from agile_ray.agent.memory import QA, Entry, Memory
from rollout.minilm import MiniLM
from rollout.rules import build_embedder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

TEXTS = ["what is the capacity of the pan ?", "how much does the pan hold ?", "who was the first king of France ?"]


def test_minilm_finds_a_paraphrase_and_repeats_itself_exactly() -> None:
    embedder = build_embedder("minilm")
    rows = embedder.embed(TEXTS)
    assert rows.shape == (3, embedder.dimension)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    similarity = rows @ rows.T
    assert similarity[0, 1] > 0.46 > similarity[0, 2]  # the paper's threshold tells them apart
    np.testing.assert_array_equal(embedder.embed(TEXTS[::-1]), rows[::-1])
    assert embedder.embed([]).shape == (0, embedder.dimension)

    memory = Memory(embedder, capacity=10)
    memory.write(Entry(kind=QA, scope="pan", key=TEXTS[0], text="two litres", writer=0))
    found = memory.retrieve(TEXTS[1], kind=QA, scope="pan", top_k=1, without={1})
    assert [match.entry.text for match in found] == ["two litres"]


def test_a_vector_of_minilm_does_not_depend_on_the_texts_that_are_embedded_with_it() -> None:
    encoder = MiniLM()
    texts = [*TEXTS, "", *(f"does it fit {'very ' * n}large pans ?" for n in (0, 2, 5, 9, 20, 300))]
    together = encoder.encode(texts)
    np.testing.assert_array_equal(encoder.encode(texts[::-1])[::-1], together)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], vector)
