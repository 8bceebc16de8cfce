"""Embeds, in a thread and together, what the lanes of an actor need at the same moment.

    lane 0  prepare([a]) -----------.                                     .--> continues
    lane 1  prepare([b, c, ... z]) -+--> batch a, b, c ... in a thread -->+    batch d, e, f ... in a thread --> ...
    lane 2  prepare([a]) -----------'                                     '--> continues

A request waits for the batch that is being embedded; the shortest requests are in the next one. Every text is embedded
once while the cache holds it.
"""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from agile_ray.agent.threads import in_thread
from agile_ray.types import Float32

CACHED_TEXTS = 100_000
"""Embeddings in the cache (150 MB): the same question is embedded when it is asked, stored and asked again."""
BATCH = 64
"""Most texts of one batch, about half a second of a core; requests that arrive meanwhile wait as long."""


class Encoder(Protocol):
    """A model that embeds texts. The vector of a text must not depend on the other texts."""

    @property
    def dimension(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Float32: ...  # [N, dimension], each vector of length 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """Texts that a lane waits for, in order; batches take them from the front."""

    texts: deque[str]
    done: asyncio.Future[None]


class BatchedEmbedder:
    """A cache of an encoder's vectors, the least recently used of which are dropped. Threads may share it."""

    def __init__(self, encoder: Encoder, *, capacity: int = CACHED_TEXTS) -> None:
        """Start with an empty cache of this many texts."""
        self.dimension = encoder.dimension
        self._encoder = encoder
        self._capacity = capacity
        self._cache: OrderedDict[str, Float32] = OrderedDict()
        self._lock = threading.Lock()  # of the cache; never held while a text is encoded
        self._requests: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None

    def embed(self, texts: Sequence[str]) -> Float32:
        """Embed texts: [N, dimension]. Encodes those that are not in the cache, which takes a while."""
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        found = self._cached(texts)
        lacking = [text for text in dict.fromkeys(texts) if text not in found]
        if lacking:
            encoded = dict(zip(lacking, self._encoder.encode(lacking), strict=True))
            self._keep(encoded)
            found |= encoded
        return np.stack([found[text] for text in texts])

    async def prepare(self, texts: Sequence[str]) -> None:
        """Return when the texts are in the cache.

        Raises:
            Exception: the encoder raised it.
        """
        lacking = deque(text for text in dict.fromkeys(texts) if text not in self._cache)
        if not lacking:
            return
        request = _Request(texts=lacking, done=asyncio.get_running_loop().create_future())
        self._requests.append(request)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        await request.done

    async def _work(self) -> None:
        try:
            await asyncio.sleep(0)  # lanes that run in the same tick join the first batch
            while self._requests:
                batch = list(islice(self._next(), BATCH))
                await in_thread(lambda batch=batch: self.embed(batch))
                self._release(set(batch))
        except Exception as error:  # noqa: BLE001  raised in the lanes that wait
            for request in self._requests:
                if not request.done.done():
                    request.done.set_exception(error)
        finally:  # also if the event loop ends
            self._requests, self._worker = [], None

    def _next(self) -> Iterator[str]:
        """What to embed next, the texts of the shortest request first."""
        chosen: set[str] = set()
        for request in sorted(self._requests, key=lambda one: len(one.texts)):
            for text in request.texts:
                if text not in chosen and text not in self._cache:
                    chosen.add(text)
                    yield text

    def _release(self, embedded: set[str]) -> None:
        """Wake the lanes whose texts are all in the cache."""
        for request in self._requests:
            while request.texts and (request.texts[0] in embedded or request.texts[0] in self._cache):
                request.texts.popleft()
            if not request.texts and not request.done.done():
                request.done.set_result(None)
        self._requests = [request for request in self._requests if request.texts and not request.done.done()]

    def _cached(self, texts: Sequence[str]) -> dict[str, Float32]:
        with self._lock:
            found = {text: self._cache[text] for text in texts if text in self._cache}
            for text in found:
                self._cache.move_to_end(text)
            return found

    def _keep(self, vectors: dict[str, Float32]) -> None:
        with self._lock:
            self._cache |= vectors
            while len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
