import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agile_ray.agent.memory import KNOWLEDGE, QA, Entry, HashedEmbedder, Memory

WORDS = ["waterproof", "warranty", "dishwasher", "battery", "camping"]


def memory(capacity=100):
    return Memory(HashedEmbedder(), capacity=capacity)


def entry(key, *, kind=QA, scope="p1", writer=0, answer="yes"):
    return Entry(kind=kind, scope=scope if kind == QA else "", key=key, text=f"{key} {answer}", writer=writer)


def test_retrieve_returns_the_most_similar_entry_first():
    one = memory()
    for writer, word in enumerate(WORDS):
        one.write(entry(f"what about its {word} ?", writer=writer))
    [first, second] = one.retrieve("tell me of the warranty", kind=QA, scope="p1", top_k=2, without={9})
    assert first.entry.writer == 1
    assert first.similarity > second.similarity


entries = st.lists(
    st.builds(
        entry,
        st.sampled_from(WORDS),
        kind=st.sampled_from([QA, KNOWLEDGE]),
        scope=st.sampled_from(["p1", "p2"]),
        writer=st.integers(0, 5),
    ),
    max_size=8,
)


@given(entries, st.sampled_from(WORDS), st.sampled_from(["p1", "p2"]), st.integers(0, 5))
def test_retrieve_and_similar_agree_with_a_scan(written, query, scope, reader):
    one, embedder = memory(), HashedEmbedder()
    kept = [item for item in written if one.write(item)]
    for kind, within in ((QA, scope), (KNOWLEDGE, "")):
        scan = [
            (float(embedder.embed([query])[0] @ embedder.embed([item.key])[0]), item)
            for item in kept
            if item.kind == kind and item.scope == within
        ]
        expected = sorted((cosine for cosine, item in scan if item.writer != reader), reverse=True)[:3]
        found = one.retrieve(query, kind=kind, scope=within, top_k=3, without={reader})
        assert [match.similarity for match in found] == pytest.approx(expected, abs=1e-6)
        assert one.similar(query, kind=kind, scope=within, threshold=0.46) == sum(c > 0.46 for c, _ in scan)


@given(entries)
def test_a_restored_memory_is_the_same_and_a_fork_is_independent(written):
    one = memory()
    for item in written:
        one.write(item)
    fork = Memory.restore(one.snapshot(), HashedEmbedder(), capacity=100)
    assert fork.snapshot().entries == one.snapshot().entries
    fork.write(entry("something else entirely"))
    assert len(fork) == len(one) + 1


def test_equal_text_is_stored_once_and_a_full_memory_refuses_writes():
    one = memory(capacity=1)
    assert one.write(entry("warranty"))
    assert not one.write(entry("warranty", writer=3))
    assert not one.write(entry("battery"))
    assert one.write(entry("battery", kind=KNOWLEDGE))


def test_forgetting_makes_room_in_a_full_memory():
    one = memory(capacity=2)
    assert one.write(entry("warranty", writer=0))
    assert one.write(entry("battery", scope="p2", writer=1))
    one.forget(0)
    assert one.write(entry("weight", writer=2))
    assert not one.write(entry("colour", writer=3))


def test_embeddings_have_length_one_even_for_empty_text():
    lengths = np.linalg.norm(HashedEmbedder().embed(["", "a b", "waterproof ?"]), axis=1)
    assert lengths == pytest.approx(1.0)


def test_forgetting_a_writer_equals_never_having_stored_its_entries():
    one, other = Memory(HashedEmbedder(), capacity=9), Memory(HashedEmbedder(), capacity=9)
    texts = ("is it heavy ?", "is it light ?", "is it round ?")
    for writer, text in enumerate(texts):
        entry = Entry(kind=QA, scope="p", key=text, text=text, writer=writer)
        assert one.write(entry)
        if writer != 1:
            assert other.write(entry)
    assert [gone.writer for gone in one.forget(1)] == [1]
    assert one.forget(7) == []
    assert one.snapshot().entries == other.snapshot().entries
    assert list(one.writers) == [0, 2]
    for text in texts:
        found = one.retrieve(text, kind=QA, scope="p", top_k=3, without=())
        assert found == other.retrieve(text, kind=QA, scope="p", top_k=3, without=())
    assert one.write(Entry(kind=QA, scope="p", key=texts[1], text=texts[1], writer=5))
