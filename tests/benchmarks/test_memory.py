"""One memory against plain FAISS: each call is timed on both, and both find the same."""

import faiss
import pytest

from agile_ray.agent.memory import KNOWLEDGE, Memory
from benchmarks.memory import Prepared, entry, measure, table, vectors


def test_each_call_has_a_line_for_each_percentile() -> None:
    found = measure(300, dimension=8, questions=5, top_k=3)
    assert [one["call"] for one in found] == ["search", "search again", "add"]
    assert all(float(one[key]) > 0 for one in found for key in one if key != "call")
    assert len(table(found).splitlines()) == 2 + 3 * 2


def test_memory_finds_what_plain_faiss_finds() -> None:
    rows = vectors(201, 16, seed=3)
    memory, plain = Memory(Prepared(rows), capacity=200), faiss.IndexFlatIP(16)
    plain.add(rows[:200])
    assert all(memory.write(entry(number)) for number in range(200))
    found = memory.retrieve("200", kind=KNOWLEDGE, scope="", top_k=7, without=())
    cosines, numbers = plain.search(rows[200:], 7)
    assert [match.entry.writer for match in found] == numbers[0].tolist()
    assert [match.similarity for match in found] == pytest.approx(cosines[0].tolist(), abs=1e-6)
