"""What the agent remembers: QA pairs per product and knowledge for the whole episode, searched by cosine with FAISS.

AGILE, Appendix B, with three differences: everything is found by the question on which it was written, since an answer
or a rule would blur the match; every entry names the session that wrote it, which credit across sessions needs; and
what several sessions wrote is kept under the question of each, and shown once.
"""

import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self

import faiss
import numpy as np

from agile_ray.errors import ContractError
from agile_ray.types import Float32, Mask

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
    """A text and a key that finds it. Entries of one kind and scope may share a text, each with its key and writer."""

    kind: str  # QA or KNOWLEDGE
    scope: str  # the product of a QA pair; "" for knowledge
    key: str  # what a question is compared with
    text: str  # what the policy reads
    writer: int  # position in the stream of the session that wrote it, or NO_WRITER


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A text that was found, as the entry whose key is nearest to the question."""

    entry: Entry
    similarity: float  # cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A moment in the life of one memory."""

    owner: object  # stands for the memory: a moment of another one, even with equal entries, is no moment of it
    number: int  # of writes and removals before


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a memory has written and forgotten since a moment. Since the beginning, that is all that it holds."""

    whole: bool  # since the beginning
    forgotten: tuple[int, ...]  # writers whose entries from before the moment are removed
    entries: tuple[Entry, ...]  # written since, in order, without those that are removed again
    vectors: Float32  # of their keys, [N, dimension]

    def then(self, later: "Change") -> "Change":
        """This change and the one after it, as one."""
        if later.whole:
            return later
        gone = set(later.forgotten)
        kept = [row for row, entry in enumerate(self.entries) if entry.writer not in gone]
        return Change(
            whole=self.whole,
            forgotten=() if self.whole else tuple(dict.fromkeys((*self.forgotten, *later.forgotten))),
            entries=(*(self.entries[row] for row in kept), *later.entries),
            vectors=np.concatenate([self.vectors[kept], later.vectors]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Removal:
    number: int  # among the writes and removals
    writer: int
    first: int  # number of the writer's first entry


class Memory:
    """One episode's memory."""

    def __init__(self, embedder: Embedder, *, capacity: int) -> None:
        """Open an empty memory.

        Args:
            embedder: of keys and questions.
            capacity: largest number of texts of each kind; further keys of a text always fit.
        """
        faiss.omp_set_num_threads(1)  # indexes are small and lanes are many, so threads would only compete
        self._embedder = embedder
        self._capacity = capacity
        self._shelves: dict[tuple[str, str], _Shelf] = {}  # by kind and scope
        self._entries: dict[int, Entry] = {}  # by number, in the order they were written
        self._happened = 0  # writes and removals: the number of the next one
        self._removals: list[_Removal] = []
        self._owner = object()
        self._texts = {QA: 0, KNOWLEDGE: 0}  # how many there are, by kind
        self._writers: dict[int, list[int]] = {}  # writer -> numbers of its entries

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._entries)

    def write(self, entry: Entry) -> bool:
        """Add an entry; return False if its text has this key already, or is new and the kind is full.

        Raises:
            ContractError: memory has no such kind.
        """
        if entry.kind not in self._texts:
            raise ContractError(f"Memory: an entry is {QA!r} or {KNOWLEDGE!r}, got {entry.kind!r}")
        shelf = self._shelves.get((entry.kind, entry.scope))
        keys = shelf.keys(entry.text) if shelf else []
        if entry.key in keys or (not keys and self._texts[entry.kind] >= self._capacity):
            return False
        self._add(entry, self._embedder.embed([entry.key])[0])
        return True

    def has(self, kind: str, *, scope: str, text: str) -> bool:
        """Whether an entry of this kind and scope has this text."""
        shelf = self._shelves.get((kind, scope))
        return shelf is not None and bool(shelf.keys(text))

    def _add(self, entry: Entry, vector: Float32) -> None:
        shelf = self._shelves.setdefault((entry.kind, entry.scope), _Shelf(self._embedder.dimension))
        self._texts[entry.kind] += not shelf.keys(entry.text)
        shelf.add(entry, vector, number=self._happened)
        self._entries[self._happened] = entry
        self._writers.setdefault(entry.writer, []).append(self._happened)
        self._happened += 1

    def retrieve(self, question: str, *, kind: str, scope: str, top_k: int, without: Collection[int]) -> list[Match]:
        """Find the texts of one kind and scope with the keys most similar to a question, best first.

        Each text comes once, as the entry with its nearest key, the earliest one in a tie.

        Args:
            question: compared with the entries' keys.
            kind: QA or KNOWLEDGE.
            scope: of the entries.
            top_k: largest number of texts.
            without: positions of sessions whose entries are skipped.
        """
        shelf = self._shelves.get((kind, scope))
        return shelf.nearest(question, self._embedder, top_k, without) if shelf else []

    def similar(self, question: str, *, kind: str, scope: str, threshold: float, without: Collection[int] = ()) -> int:
        """Count the texts of one kind and scope with a key whose cosine to a question is above `threshold`.

        Args:
            question: compared with the entries' keys.
            kind: QA or KNOWLEDGE.
            scope: of the entries.
            threshold: cosine.
            without: positions of sessions whose entries are not counted.
        """
        shelf = self._shelves.get((kind, scope))
        return shelf.count(question, self._embedder, threshold, without) if shelf else 0

    def cosine(self, first: str, second: str) -> float:
        """Cosine of two texts."""
        left, right = self._embedder.embed([first, second])
        return float(left @ right)

    @property
    def writers(self) -> Collection[int]:
        """Positions of the sessions that wrote entries, in the order in which they wrote."""
        return self._writers.keys()

    def forget(self, writer: int) -> list[Entry]:
        """Remove and return what the session at a position wrote, as if it had never been written.

        A text that others wrote too stays under their keys.
        """
        numbers = self._writers.pop(writer, [])
        dropped = [self._entries.pop(number) for number in numbers]
        for kind, scope in {(entry.kind, entry.scope) for entry in dropped}:
            self._texts[kind] -= self._shelves[kind, scope].drop(writer)
        if numbers:
            self._removals.append(_Removal(number=self._happened, writer=writer, first=numbers[0]))
            self._happened += 1
        return dropped

    @property
    def moment(self) -> Moment:
        """Now, for a later call of `change`."""
        return Moment(owner=self._owner, number=self._happened)

    def change(self, since: Moment | None = None) -> Change:
        """What has changed, with the vectors, so that restoring does not embed again.

        Args:
            since: a moment of this memory. None, or a moment of another memory: the beginning.
        """
        start = since.number if since is not None and since.owner is self._owner else 0
        grown = [shelf for shelf in self._shelves.values() if shelf.numbers and shelf.numbers[-1] >= start]
        empty = np.zeros((0, self._embedder.dimension), dtype=np.float32)
        vectors = np.concatenate([empty, *(shelf.vectors(start) for shelf in grown)])
        numbers = [number for shelf in grown for number in shelf.numbers[bisect_left(shelf.numbers, start) :]]
        gone = (removal.writer for removal in self._removals if removal.first < start <= removal.number)
        return Change(
            whole=start == 0,
            forgotten=tuple(dict.fromkeys(gone)),
            entries=tuple(self._entries[number] for number in sorted(numbers)),
            vectors=vectors[np.argsort(numbers)],
        )

    @classmethod
    def restore(cls, contents: Change, embedder: Embedder, *, capacity: int) -> Self:
        """Build a memory with exactly the entries of another one.

        Args:
            contents: all that the other one holds.
            embedder: as in `__init__`.
            capacity: as in `__init__`.
        """
        assert contents.whole, "Memory: what has changed since a moment is joined to what was there before"
        memory = cls(embedder, capacity=capacity)
        for entry, vector in zip(contents.entries, contents.vectors, strict=True):
            memory._add(entry, vector)
        return memory


class _Shelf:
    """Entries of one kind and scope, in the order they were written; row k of all that it holds is of entry k."""

    def __init__(self, dimension: int) -> None:
        self.numbers: list[int] = []  # of the entries in the memory, rising
        self._entries: list[Entry] = []
        self._index = faiss.IndexFlatIP(dimension)  # of the keys' vectors
        self._writers = array("q")  # of the entries: grows without a copy for each
        self._rows: dict[str, list[int]] = {}  # by text
        self._scored: tuple[str, Float32] | None = None  # the last question and its cosines, until the entries change

    def vectors(self, start: int) -> Float32:
        """Vectors of the keys of the entries with this number and later ones: [N, dimension]."""
        row = bisect_left(self.numbers, start)
        return self._index.reconstruct_n(row, self._index.ntotal - row)

    def keys(self, text: str) -> list[str]:
        """The keys of a text; none if there is no such text."""
        return [self._entries[row].key for row in self._rows.get(text, ())]

    def add(self, entry: Entry, vector: Float32, *, number: int) -> None:
        self._rows.setdefault(entry.text, []).append(len(self._entries))
        self._index.add(vector[None])
        self.numbers.append(number)
        self._entries.append(entry)
        self._writers.append(entry.writer)
        self._scored = None

    def drop(self, writer: int) -> int:
        """Remove the entries of a writer; return how many texts went with them."""
        writers = np.array(self._writers, dtype=np.int64)
        kept = np.flatnonzero(writers != writer).tolist()
        self._index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(writers == writer)))
        self.numbers = [self.numbers[row] for row in kept]
        self._entries = [self._entries[row] for row in kept]
        self._writers = array("q", writers[kept].tolist())
        before, self._rows = len(self._rows), {}
        for row, entry in enumerate(self._entries):
            self._rows.setdefault(entry.text, []).append(row)
        self._scored = None
        return before - len(self._rows)

    def nearest(self, question: str, embedder: Embedder, top_k: int, without: Collection[int]) -> list[Match]:
        cosines = np.where(self._hidden(without), -np.inf, self._cosines(question, embedder))
        found: list[Match] = []
        while len(found) < min(top_k, len(self._rows)):
            best = int(cosines.argmax())
            if np.isneginf(cosines[best]):
                break
            found.append(Match(entry=self._entries[best], similarity=float(cosines[best])))
            cosines[self._rows[self._entries[best].text]] = -np.inf
        return found

    def count(self, question: str, embedder: Embedder, threshold: float, without: Collection[int]) -> int:
        near = (self._cosines(question, embedder) > threshold) & ~self._hidden(without)
        return len({self._entries[row].text for row in np.flatnonzero(near)})

    def _hidden(self, without: Collection[int]) -> Mask:
        return np.isin(np.array(self._writers, dtype=np.int64), np.array([*without], dtype=np.int64))

    def _cosines(self, question: str, embedder: Embedder) -> Float32:
        """Cosine of the question and each key: [N]. A session asks for it several times, so the last one is kept."""
        if self._scored is None or self._scored[0] != question:
            vector = embedder.embed([question])[0]
            _, found, rows = self._index.range_search(vector[None], -2.0)  # no cosine is below: all rows are found
            cosines = np.empty(len(rows), dtype=np.float32)
            cosines[rows] = found
            self._scored = (question, cosines)
        return self._scored[1]
