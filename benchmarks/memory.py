"""Measures one memory of many entries against plain FAISS with the same vectors: adding and searching, one at a time.

Vectors are random and made beforehand, so no embedder is measured. Both sides are asked for the same questions in turn.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from agile_ray.agent.memory import KNOWLEDGE, Entry, Memory
from agile_ray.types import Float32

EXAMPLE = """example:
  python benchmarks/memory.py --entries 1000000 --json runs/memory.json
"""
PERCENTILES = (50, 99)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An embedder that knows the vector of each text: row 7 is that of "7"."""

    rows: Float32  # [N, dimension]

    @property
    def dimension(self) -> int:
        return self.rows.shape[1]

    def embed(self, texts: Sequence[str]) -> Float32:
        return self.rows[[int(text) for text in texts]]

    async def prepare(self, texts: Sequence[str]) -> None:
        """Nothing to do."""


def vectors(count: int, dimension: int, seed: int) -> Float32:
    """Random vectors of length 1: [count, dimension]."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def entry(number: int) -> Entry:
    """A rule that session `number` wrote on its question."""
    return Entry(kind=KNOWLEDGE, scope="", key=str(number), text=f"rule {number}", writer=number)


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def measure(entries: int, *, dimension: int, questions: int, top_k: int) -> list[dict[str, float | str]]:
    """Fill both, add and search; one line for each kind of call.

    Args:
        entries: of the memory, before the calls that are timed.
        dimension: of the vectors.
        questions: searched, and as many entries added.
        top_k: entries found by one search.
    """
    rows = vectors(entries + 2 * questions, dimension, seed=0)
    memory, plain = Memory(Prepared(rows), capacity=len(rows)), faiss.IndexFlatIP(dimension)
    for number in range(entries):
        memory.write(entry(number))
    plain.add(rows[:entries])
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ("search", "search again", "add")}
    for number in range(entries, entries + questions):
        asked = str(number + questions)
        vector = rows[int(asked)][None]

        def search(asked: str = asked) -> object:
            return memory.retrieve(asked, kind=KNOWLEDGE, scope="", top_k=top_k, without=())

        def search_plain(vector: Float32 = vector) -> object:
            return plain.search(vector, top_k)

        for name, ours, theirs in (
            ("search", search, search_plain),
            ("search again", search, search_plain),  # a session searches for its question more than once
            ("add", lambda number=number: memory.write(entry(number)), lambda number=number: plain.add(rows[[number]])),
        ):
            times[name][0].append(timed(ours))
            times[name][1].append(timed(theirs))
    return [
        {"call": name}
        | {f"ours_p{at}_ms": float(np.percentile(ours, at)) for at in PERCENTILES}
        | {f"faiss_p{at}_ms": float(np.percentile(theirs, at)) for at in PERCENTILES}
        for name, (ours, theirs) in times.items()
    ]


def table(found: list[dict[str, float | str]]) -> str:
    """The lines in Markdown, with the ratio of each percentile."""
    lines = ["| call | percentile | memory, ms | FAISS, ms | ratio |", "|---|---|---|---|---|"]
    for one in found:
        for at in PERCENTILES:
            ours, theirs = float(one[f"ours_p{at}_ms"]), float(one[f"faiss_p{at}_ms"])
            lines.append(f"| {one['call']} | {at} | {ours:.3f} | {theirs:.3f} | {ours / theirs:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--dimension", type=int, default=384, help="of the vectors; default: that of MiniLM")
    parser.add_argument("--questions", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--top-k", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    found = measure(given.entries, dimension=given.dimension, questions=given.questions, top_k=given.top_k)
    print(table(found))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
