"""What the agent remembers: QA pairs per product and knowledge for the whole episode, searched by cosine with FAISS.

AGILE, Appendix B, with two differences: a QA pair is found by its question alone, since the answer would blur the
match; and every entry names the session that wrote it, which credit across sessions needs.
"""

import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self

import faiss
import numpy as np

from agile_ray.errors import ContractError
from agile_ray.types import Float32

QA = "qa"
KNOWLEDGE = "knowledge"


class Embedder(Protocol):
    """Maps texts to vectors whose inner product is their cosine similarity."""

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Float32:
        """Embed N texts as float32 [N, dimension], each vector of length 1."""
        ...

    async def prepare(self, texts: Sequence[str]) -> None:
        """Return when `embed` of these texts takes no time to speak of, so that it may run on an event loop."""
        ...


class HashedEmbedder:
    """Embeds hashed character n-grams with a sign. Needs no model; long words weigh most."""

    dimension = 256

    def embed(self, texts: Sequence[str]) -> Float32:
        return np.stack([_hashed(text.lower()) for text in texts])

    async def prepare(self, texts: Sequence[str]) -> None:
        """Nothing to do: hashing a text takes a tenth of a millisecond."""


@lru_cache(maxsize=65_536)
def _hashed(text: str) -> Float32:
    vector = np.zeros(HashedEmbedder.dimension, dtype=np.float32)
    for word in re.findall(r"\w+", text):
        padded = f"<{word}>"
        for size in (3, 4, 5):
            for start in range(len(padded) - size + 1):
                code = zlib.crc32(padded[start : start + size].encode())
                vector[code % HashedEmbedder.dimension] += 1.0 if code & (1 << 20) else -1.0
    length = float(np.linalg.norm(vector))
    if length == 0.0:
        vector[0] = length = 1.0
    return vector / np.float32(length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing remembered."""

    kind: str  # QA or KNOWLEDGE
    scope: str  # the product of a QA pair; "" for knowledge
    key: str  # what a question is compared with
    text: str  # what the policy reads
    writer: int  # position in the stream of the session that wrote it


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An entry and its similarity to the question."""

    entry: Entry
    similarity: float  # cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The contents of a memory at one moment."""

    entries: tuple[Entry, ...]  # in the order they were written
    vectors: Float32  # [N, dimension]


class Memory:
    """One episode's memory."""

    def __init__(self, embedder: Embedder, *, capacity: int) -> None:
        faiss.omp_set_num_threads(1)  # indexes are small and lanes are many, so threads would only compete
        self._embedder = embedder
        self._capacity = capacity
        self._shelves = {kind: _Shelf(embedder.dimension) for kind in (QA, KNOWLEDGE)}
        self._order: list[Entry] = []
        self._vectors: list[Float32] = []
        self._texts: set[tuple[str, str, str]] = set()
        self._writers: dict[int, None] = {}  # an ordered set

    def __len__(self) -> int:
        return len(self._order)

    def write(self, entry: Entry) -> bool:
        """Add an entry; return False if memory has the same text already or the kind is full.

        Raises:
            ContractError: memory has no such kind.
        """
        if entry.kind not in self._shelves:
            raise ContractError(f"Memory: an entry is {QA!r} or {KNOWLEDGE!r}, got {entry.kind!r}")
        if self.has(entry.kind, scope=entry.scope, text=entry.text) or len(self._shelves[entry.kind]) >= self._capacity:
            return False
        self._add(entry, self._embedder.embed([entry.key])[0])
        return True

    def has(self, kind: str, *, scope: str, text: str) -> bool:
        """Whether an entry of this kind and scope has this text."""
        return (kind, scope, text) in self._texts

    def _add(self, entry: Entry, vector: Float32) -> None:
        self._shelves[entry.kind].add(entry, vector)
        self._order.append(entry)
        self._vectors.append(vector)
        self._writers[entry.writer] = None
        self._texts.add((entry.kind, entry.scope, entry.text))

    def retrieve(self, question: str, *, kind: str, scope: str, top_k: int, without: Collection[int]) -> list[Match]:
        """Find the entries of one kind and scope that are most similar to a question, best first.

        Args:
            question: compared with the entries' keys.
            kind: QA or KNOWLEDGE.
            scope: of the entries.
            top_k: largest number of entries.
            without: positions of sessions whose entries are skipped.
        """
        return self._shelves[kind].search(self._embedder.embed([question])[0], scope, top_k, without)

    def similar(self, question: str, *, kind: str, scope: str, threshold: float, without: Collection[int] = ()) -> int:
        """Count the entries of one kind and scope whose cosine to a question is above `threshold`.

        Args:
            question: compared with the entries' keys.
            kind: QA or KNOWLEDGE.
            scope: of the entries.
            threshold: cosine.
            without: positions of sessions whose entries are not counted.
        """
        return self._shelves[kind].count(self._embedder.embed([question])[0], scope, threshold, without)

    def cosine(self, first: str, second: str) -> float:
        """Cosine of two texts."""
        left, right = self._embedder.embed([first, second])
        return float(left @ right)

    @property
    def writers(self) -> Collection[int]:
        """Positions of the sessions that wrote entries, in the order in which they wrote."""
        return self._writers

    def forget(self, writer: int) -> list[Entry]:
        """Remove and return what the session at a position wrote, as if it had never been written."""
        if writer not in self._writers:
            return []
        dropped = [entry for entry in self._order if entry.writer == writer]
        del self._writers[writer]
        kept = [index for index, entry in enumerate(self._order) if entry.writer != writer]
        self._texts -= {(entry.kind, entry.scope, entry.text) for entry in dropped}
        self._order = [self._order[index] for index in kept]
        self._vectors = [self._vectors[index] for index in kept]
        for shelf in self._shelves.values():
            shelf.drop(writer)
        return dropped

    def snapshot(self) -> Snapshot:
        """All entries with their vectors, so that restoring does not embed again."""
        empty = np.zeros((0, self._embedder.dimension), dtype=np.float32)
        return Snapshot(entries=tuple(self._order), vectors=np.stack(self._vectors) if self._vectors else empty)

    @classmethod
    def restore(cls, snapshot: Snapshot, embedder: Embedder, *, capacity: int) -> Self:
        """Build a memory with exactly the entries of a snapshot."""
        memory = cls(embedder, capacity=capacity)
        for entry, vector in zip(snapshot.entries, snapshot.vectors, strict=True):
            memory._add(entry, vector)
        return memory


class _Shelf:
    """Entries of one kind and their FAISS index; entry k is vector k."""

    def __init__(self, dimension: int) -> None:
        self._index = faiss.IndexFlatIP(dimension)
        self._entries: list[Entry] = []
        self._by_scope: dict[str, list[int]] = {}  # indices of the entries that can be found

    def __len__(self) -> int:
        """Entries that can be found."""
        return sum(map(len, self._by_scope.values()))

    def add(self, entry: Entry, vector: Float32) -> None:
        self._by_scope.setdefault(entry.scope, []).append(len(self._entries))
        self._entries.append(entry)
        self._index.add(vector[None])

    def drop(self, writer: int) -> None:
        """Hide the entries of a writer from searches; their vectors stay, since FAISS indices must not shift."""
        for scope, indices in self._by_scope.items():
            self._by_scope[scope] = [index for index in indices if self._entries[index].writer != writer]

    def search(self, vector: Float32, scope: str, top_k: int, without: Collection[int]) -> list[Match]:
        indices = self._findable(scope, without)
        if not indices:
            return []
        found, order = self._index.search(vector[None], min(top_k, len(indices)), params=_only(indices))
        return [
            Match(entry=self._entries[index], similarity=float(similarity))
            for similarity, index in zip(found[0], order[0], strict=True)
        ]

    def count(self, vector: Float32, scope: str, threshold: float, without: Collection[int]) -> int:
        indices = self._findable(scope, without)
        if not indices:
            return 0
        limits, _, _ = self._index.range_search(vector[None], threshold, params=_only(indices))
        return int(limits[1])

    def _findable(self, scope: str, without: Collection[int]) -> list[int]:
        return [index for index in self._by_scope.get(scope, ()) if self._entries[index].writer not in without]


def _only(indices: list[int]) -> faiss.SearchParameters:
    selector = faiss.IDSelectorBatch(np.array(indices, dtype=np.int64))
    return faiss.SearchParameters(sel=selector)  # pyright: ignore[reportCallIssue]  its stub misses the keyword
