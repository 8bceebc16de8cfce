"""What the agent remembers: QA pairs under a product, knowledge for the whole episode; cosine search in FAISS.

AGILE, Appendix B, with two choices of our own: a QA pair is found by its question alone (the answer would only blur the
match), and every entry names the session that wrote it, which is what credit across sessions needs.
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
    """Maps texts to points whose inner product is their cosine similarity."""

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Float32:
        """float32 [N, dimension], rows of length 1."""
        ...


class HashedEmbedder:
    """Character n-grams of words, hashed with a sign: needs no model, and long rare words weigh most."""

    dimension = 256

    def embed(self, texts: Sequence[str]) -> Float32:
        return np.stack([_hashed(text.lower()) for text in texts])


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
    """An entry and how like the question it is."""

    entry: Entry
    similarity: float  # cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of a memory at one moment."""

    entries: tuple[Entry, ...]  # in the order they were written
    vectors: Float32  # [N, dimension]


class Memory:
    """One episode's memory."""

    def __init__(self, embedder: Embedder, *, capacity: int) -> None:
        faiss.omp_set_num_threads(1)  # indexes are small and lanes many: threads would only fight
        self._embedder = embedder
        self._capacity = capacity
        self._shelves = {kind: _Shelf(embedder.dimension) for kind in (QA, KNOWLEDGE)}
        self._order: list[Entry] = []
        self._vectors: list[Float32] = []
        self._known: set[tuple[str, str, str]] = set()
        self._writers: dict[int, None] = {}  # in the order in which they wrote

    def __len__(self) -> int:
        return len(self._order)

    def write(self, entry: Entry) -> bool:
        """Add an entry; False if the same text is there already or the kind is full.

        Raises:
            ContractError: memory has no such kind.
        """
        if entry.kind not in self._shelves:
            raise ContractError(f"Memory: an entry is {QA!r} or {KNOWLEDGE!r}, got {entry.kind!r}")
        if (entry.kind, entry.scope, entry.text) in self._known or len(self._shelves[entry.kind]) >= self._capacity:
            return False
        self._add(entry, self._embedder.embed([entry.key])[0])
        return True

    def _add(self, entry: Entry, vector: Float32) -> None:
        self._shelves[entry.kind].add(entry, vector)
        self._order.append(entry)
        self._vectors.append(vector)
        self._writers[entry.writer] = None
        self._known.add((entry.kind, entry.scope, entry.text))

    def retrieve(self, question: str, *, kind: str, scope: str, top_k: int, without: Collection[int]) -> list[Match]:
        """The entries of one kind and scope that are most like a question, best first.

        Args:
            without: positions of sessions whose entries are passed over: the one that asks, at least.
        """
        return self._shelves[kind].search(self._embedder.embed([question])[0], scope, top_k, without)

    def similar(self, question: str, *, kind: str, scope: str, threshold: float, without: Collection[int] = ()) -> int:
        """How many entries of one kind and scope have a cosine above `threshold` to a question.

        Args:
            without: positions of sessions whose entries are not counted.
        """
        return self._shelves[kind].count(self._embedder.embed([question])[0], scope, threshold, without)

    def cosine(self, first: str, second: str) -> float:
        """How like two questions are."""
        left, right = self._embedder.embed([first, second])
        return float(left @ right)

    @property
    def writers(self) -> Collection[int]:
        """Positions of the sessions that wrote what is held."""
        return self._writers

    def forget(self, writer: int) -> list[Entry]:
        """Drop what the session at a position wrote, as if it had never been there, and return it."""
        if writer not in self._writers:
            return []
        dropped = [entry for entry in self._order if entry.writer == writer]
        del self._writers[writer]
        kept = [place for place, entry in enumerate(self._order) if entry.writer != writer]
        self._known -= {(entry.kind, entry.scope, entry.text) for entry in dropped}
        self._order = [self._order[place] for place in kept]
        self._vectors = [self._vectors[place] for place in kept]
        for shelf in self._shelves.values():
            shelf.drop(writer)
        return dropped

    def snapshot(self) -> Snapshot:
        """All entries with their vectors, to restore without embedding again."""
        empty = np.zeros((0, self._embedder.dimension), dtype=np.float32)
        return Snapshot(entries=tuple(self._order), vectors=np.stack(self._vectors) if self._vectors else empty)

    @classmethod
    def restore(cls, snapshot: Snapshot, embedder: Embedder, *, capacity: int) -> Self:
        """A memory that holds exactly what the snapshot holds."""
        memory = cls(embedder, capacity=capacity)
        for entry, vector in zip(snapshot.entries, snapshot.vectors, strict=True):
            memory._add(entry, vector)
        return memory


class _Shelf:
    """Entries of one kind and their FAISS index; entry k is vector k."""

    def __init__(self, dimension: int) -> None:
        self._index = faiss.IndexFlatIP(dimension)
        self._entries: list[Entry] = []
        self._places: dict[str, list[int]] = {}

    def __len__(self) -> int:
        """Entries that can be found."""
        return sum(map(len, self._places.values()))

    def add(self, entry: Entry, vector: Float32) -> None:
        self._places.setdefault(entry.scope, []).append(len(self._entries))
        self._entries.append(entry)
        self._index.add(vector[None])

    def drop(self, writer: int) -> None:
        """Make entries of a writer unfindable; their vectors stay, since an index's places never move."""
        for scope, places in self._places.items():
            self._places[scope] = [place for place in places if self._entries[place].writer != writer]

    def search(self, vector: Float32, scope: str, top_k: int, without: Collection[int]) -> list[Match]:
        places = self._open(scope, without)
        if not places:
            return []
        found, order = self._index.search(vector[None], min(top_k, len(places)), params=_only(places))
        return [
            Match(entry=self._entries[place], similarity=float(similarity))
            for similarity, place in zip(found[0], order[0], strict=True)
        ]

    def count(self, vector: Float32, scope: str, threshold: float, without: Collection[int]) -> int:
        places = self._open(scope, without)
        if not places:
            return 0
        limits, _, _ = self._index.range_search(vector[None], threshold, params=_only(places))
        return int(limits[1])

    def _open(self, scope: str, without: Collection[int]) -> list[int]:
        return [place for place in self._places.get(scope, ()) if self._entries[place].writer not in without]


def _only(places: list[int]) -> faiss.SearchParameters:
    selector = faiss.IDSelectorBatch(np.array(places, dtype=np.int64))
    return faiss.SearchParameters(sel=selector)  # pyright: ignore[reportCallIssue]  its stub misses the keyword
