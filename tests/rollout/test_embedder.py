"""What lanes need at the same moment is embedded together and once, on an encoder that counts."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from agile_ray.agent.memory import HashedEmbedder
from agile_ray.types import Float32
from rollout.embedder import BATCH, BatchedEmbedder


class Counting:
    """Records its batches, and the threads that they run in. The first batch can be held."""

    dimension = HashedEmbedder.dimension

    def __init__(self, *, held: bool = False, fails_on: str | None = None) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self._held = held
        self._fails_on = fails_on

    def encode(self, texts: Sequence[str]) -> Float32:
        self.batches.append(list(texts))
        self.threads.add(threading.get_ident())
        self.begun.set()
        if self._held and len(self.batches) == 1:
            assert self.goes_on.wait(60)
        if self._fails_on in texts:
            raise RuntimeError("out of memory")
        return HashedEmbedder().embed(texts)


async def prepare(embedder: BatchedEmbedder, *requests: Sequence[str]) -> None:
    await asyncio.gather(*(embedder.prepare(request) for request in requests))


def test_what_lanes_need_at_the_same_moment_is_one_batch_in_a_thread_and_each_text_is_embedded_once() -> None:
    encoder = Counting()
    embedder = BatchedEmbedder(encoder)
    asyncio.run(prepare(embedder, ["a", "b"], ["b"], ["c", "a"], []))
    assert [sorted(batch) for batch in encoder.batches] == [["a", "b", "c"]]
    assert encoder.threads.isdisjoint({threading.get_ident()})
    np.testing.assert_array_equal(embedder.embed(["c", "b", "c"]), HashedEmbedder().embed(["c", "b", "c"]))
    asyncio.run(prepare(embedder, ["a", "b"]))
    assert len(encoder.batches) == 1
    assert embedder.embed([]).shape == (0, encoder.dimension)


def test_requests_that_come_during_a_batch_are_in_the_next_one_the_shortest_first() -> None:
    encoder = Counting(held=True)
    embedder = BatchedEmbedder(encoder)
    stream = [f"question {n}" for n in range(3 * BATCH)]

    async def lanes() -> None:
        first = asyncio.create_task(embedder.prepare(stream))
        while not encoder.begun.is_set():
            await asyncio.sleep(0)
        second = asyncio.create_task(embedder.prepare(["urgent", stream[-1]]))
        await asyncio.sleep(0)
        encoder.goes_on.set()
        await second
        assert not first.done()
        await first

    asyncio.run(lanes())
    assert encoder.batches[0] == stream[:BATCH]
    assert encoder.batches[1][:3] == ["urgent", stream[-1], stream[BATCH]]
    assert sorted(text for batch in encoder.batches for text in batch) == sorted([*stream, "urgent"])
    assert [len(batch) for batch in encoder.batches] == [BATCH, BATCH, BATCH, 1]


def test_an_error_of_the_encoder_is_raised_in_every_lane_that_waits_and_in_no_later_one() -> None:
    embedder = BatchedEmbedder(Counting(fails_on="bad"))

    async def lanes() -> list[BaseException | None]:
        return await asyncio.gather(*map(embedder.prepare, (["a"], ["bad"])), return_exceptions=True)

    assert [str(error) for error in asyncio.run(lanes())] == ["out of memory"] * 2
    asyncio.run(prepare(embedder, ["a"]))
    assert embedder.embed(["a"]).shape == (1, Counting.dimension)


def test_a_lane_that_is_stopped_stops_no_other_and_an_event_loop_that_ended_early_stops_no_later_one() -> None:
    encoder = Counting(held=True)
    embedder = BatchedEmbedder(encoder)

    async def stopped() -> None:
        first, second = (asyncio.create_task(embedder.prepare([text])) for text in ("a", "b"))
        while not encoder.begun.is_set():
            await asyncio.sleep(0)
        first.cancel()
        encoder.goes_on.set()
        await second

    asyncio.run(stopped())
    slow = BatchedEmbedder(held := Counting(held=True))

    async def ended() -> None:
        waiting = asyncio.create_task(slow.prepare(["a"]))
        while not held.begun.is_set():
            await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(ended())
    held.goes_on.set()
    asyncio.run(asyncio.wait_for(slow.prepare(["b"]), 60))
    assert ["b"] in held.batches


@pytest.mark.parametrize(("used", "dropped"), [("a", "b"), ("b", "a")])
def test_a_full_cache_drops_the_text_that_was_not_used_for_longest(used: str, dropped: str) -> None:
    encoder = Counting()
    embedder = BatchedEmbedder(encoder, capacity=3)
    embedder.embed(["a", "b", "c"])
    embedder.embed([used])
    embedder.embed(["d"])
    embedder.embed([used, "c", "d"])
    assert encoder.batches == [["a", "b", "c"], ["d"]]
    embedder.embed([dropped])
    assert encoder.batches[-1] == [dropped]


def test_more_texts_than_the_cache_holds_are_all_embedded() -> None:
    encoder = Counting()
    embedder = BatchedEmbedder(encoder, capacity=2)
    texts = [str(n) for n in range(2 * BATCH)]
    np.testing.assert_array_equal(embedder.embed(texts), HashedEmbedder().embed(texts))
    asyncio.run(prepare(embedder, texts))
    assert [len(batch) for batch in encoder.batches[1:]] == [BATCH, BATCH - 2]
