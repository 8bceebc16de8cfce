"""Streams of sessions in which the worth of a memory entry is known."""

from random import Random

import numpy as np

from agile_ray.types import MemoryUse, Receipt, Session
from envs.shop_world import categories, draw
from tests.fakes.worlds import SESSION, changed

ITEMS, RECUR, PRICE, GUESS = 8, 3, 700, 0.5


RECEIPTS = (Receipt(key="", price=PRICE, source="", latency_s=0.0, advice="", answer=""),)


def session(
    stream: int, position: int, length: int, *, size: int, known: bool, correct: bool, asked: bool, wrote: bool
) -> Session:
    """A session on the topic `item`, with what credit by a fit looks at."""
    return changed(
        SESSION,
        stream=f"s{stream:04}",
        position=position,
        stream_length=length,
        topic="item",
        memory_sizes={"item": size},
        known=known,
        correct=correct,
        receipts=RECEIPTS if asked else (),
        writes=(MemoryUse(kind="qa", writer=position, similarity=1.0),) if wrote else (),
    )


def recurring(random: np.random.Generator, stream: int, ask: float) -> tuple[list[Session], list[int]]:
    """One stream of the three-price toy, and how often each session's item comes again; -1 where memory has it."""
    order = random.permutation(np.repeat(np.arange(ITEMS), RECUR)).tolist()
    known: set[int] = set()
    sessions, again = [], []
    for position, item in enumerate(order):
        asks = item not in known and random.random() < ask
        correct = item in known or asks or random.random() < GUESS
        length = len(order)
        sessions.append(
            session(
                stream,
                position,
                length,
                size=len(known),
                known=item in known,
                correct=correct,
                asked=asks,
                wrote=asks,
            )
        )
        again.append(-1 if item in known else order[position + 1 :].count(item))
        known |= {item} if asks else set()
    return sessions, again


def asks_whatever_comes(random: np.random.Generator, *, streams: int, length: int) -> list[Session]:
    """Nothing recurs and every question is asked: the size of memory is the position in the stream."""
    return [
        session(
            stream, position, length, size=position, known=False, correct=random.random() < 0.9, asked=True, wrote=True
        )
        for stream in range(streams)
        for position in range(length)
    ]


LENGTH = 12
WORTH = 0.6


def linear(random: np.random.Generator, *, streams: int, writing: float = 0.5) -> list[Session]:
    """Sessions write at random, and are right with probability 0.2 + 0.05 size, so V is linear.

    Right: memory holds the answer, with probability 0.0625 size, or else a guess of 0.2 is right.

    After position t, size grows by a half each session, so V = sum over the n sessions left of 0.2 + 0.05 (size + k/2):
    linear in n, n^2 and n size, and an entry at the start of a stream is worth 12 * 0.05 = 0.6.
    """
    sessions = []
    for stream in range(streams):
        wrote = random.random(LENGTH) < writing
        sizes = np.cumsum(wrote) - wrote
        known = random.random(LENGTH) < WORTH / LENGTH / 0.8 * sizes
        correct = known | (random.random(LENGTH) < 0.2)
        sessions += [
            session(
                stream,
                position,
                LENGTH,
                size=int(size),
                known=bool(has),
                correct=bool(right),
                asked=False,
                wrote=bool(writes),
            )
            for position, (size, has, right, writes) in enumerate(zip(sizes, known, correct, wrote, strict=True))
        ]
    return sessions


def two_topics(seed: int) -> list[Session]:
    """`linear` with two topics."""
    random = np.random.default_rng(seed)
    return [changed(one, topic=random.choice(["item", "item", "other"])) for one in linear(random, streams=40)]


def busy(random: np.random.Generator, *, streams: int) -> list[Session]:
    """Every new item is asked about, and streams differ in their number of questions; entries bring no hits.

    Whether a question on the topic is about a known item is random, whatever memory holds.
    """
    sessions = []
    for stream in range(streams):
        here = random.random(LENGTH) < random.choice([0.2, 0.8])
        known = here & (random.random(LENGTH) < 0.5)
        wrote = here & ~known
        sizes = np.cumsum(wrote) - wrote
        sessions += [
            changed(
                session(
                    stream,
                    position,
                    LENGTH,
                    size=int(size),
                    known=bool(has),
                    correct=True,
                    asked=bool(new),
                    wrote=bool(new),
                ),
                topic="item" if on_topic else "other",
            )
            for position, (size, has, new, on_topic) in enumerate(zip(sizes, known, wrote, here, strict=True))
        ]
    return sessions


CHEAP = changed(RECEIPTS[0], price=300)


def shop(random: Random, stream: int, ask: float) -> tuple[list[Session], list[float]]:
    """One stream of the shop in which new items are asked about with probability `ask`, and the worth of each entry.

    An entry on an item is read whenever the item comes again, by a session that has not asked before: credit by links,
    with exact values (agile_ray/credit/linked.py).
    """
    questions = draw(random.choice(categories("train")), random).questions
    topic_of: dict[str, str] = {}  # of the items that memory knows
    sessions, worth = [], []
    for position, one in enumerate(questions):
        known = one.item in topic_of
        asks = not known and not one.query and random.random() < ask
        right = known or asks or bool(one.query) or random.random() < one.guess_probability
        played = session(stream, position, len(questions), size=0, known=known, correct=right, asked=asks, wrote=asks)
        sizes = {topic: list(topic_of.values()).count(topic) for topic in topic_of.values()}
        receipts = (CHEAP,) if asks else ()
        sessions.append(changed(played, topic=one.topic, memory_sizes=sizes, receipts=receipts))
        lacking = ask * (1 - CHEAP.price / 1000) + (1 - ask) * one.guess_probability
        again = sum(later.item == one.item for later in questions[position + 1 :])
        worth.append(sum((1 - ask) ** reader * (1 - lacking) for reader in range(again)))
        topic_of |= {one.item: one.topic} if asks else {}
    return sessions, worth
