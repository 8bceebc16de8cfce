"""What is counted for each session of a stream, against slow versions; and that counting a longer stream costs in
proportion.
"""

import random

import numpy as np
import pytest

from agile_ray.agent import later
from agile_ray.agent.hindsight import Held
from agile_ray.agent.later import later_similar
from agile_ray.agent.memory import HashedEmbedder
from tests.fakes.worlds import question

WORDS = ("steel", "oven", "handle", "weight", "induction", "coating")


class Counting(HashedEmbedder):
    """Counts the texts that it embeds."""

    embedded = 0

    def embed(self, texts):
        self.embedded += len(texts)
        return super().embed(texts)


def stream(length, *, seed=0, products=4):
    draw = random.Random(seed)
    return tuple(
        question(
            number,
            " ".join(draw.choices(WORDS, k=2)),
            product=f"p{draw.randrange(products)}",
            knowledge=draw.choice(("", "steel rusts")),
        )
        for number in range(length)
    )


def slowly(questions, threshold):
    """N of AGILE, eq. 7, one pair at a time."""
    embed = HashedEmbedder().embed
    return [
        sum(
            float(embed([one.text])[0] @ embed([other.text])[0]) > threshold
            for other in questions[position + 1 :]
            if one.product == other.product or (one.knowledge and other.knowledge)
        )
        for position, one in enumerate(questions)
    ]


@pytest.mark.parametrize("length", [0, 1, 2, 60])
@pytest.mark.parametrize("products", [1, 4, 100])
@pytest.mark.parametrize("rows", [7, 512])
def test_the_counts_are_those_of_every_pair(monkeypatch, length, products, rows):
    monkeypatch.setattr(later, "_ROWS", rows)
    questions = stream(length, products=products)
    counts = later_similar(questions, embedder=HashedEmbedder(), threshold=0.4)
    assert counts.tolist() == slowly(questions, 0.4)
    assert length < 60 or counts.sum() > 0


@pytest.mark.parametrize("length", [50, 100])
def test_every_question_is_embedded_once(length):
    embedder = Counting()
    later_similar(stream(length), embedder=embedder, threshold=0.4)
    assert embedder.embedded == length


def test_held_counts_the_writers_that_memory_holds_whatever_is_forgotten():
    questions, draw = stream(40), random.Random(1)
    held, writers = Held(questions), {}
    for _ in range(200):
        for _ in range(draw.randrange(4)):
            writer = draw.randrange(40)
            if draw.random() < 0.4:
                writers.pop(writer, None)
            else:
                writers[writer] = None
        held.follow(writers.keys())
        for name, counts in (("item", held.items), ("topic", held.topics)):
            values = [getattr(questions[writer], name) for writer in writers]
            assert {value: size for value, size in counts.items() if size} == {
                value: values.count(value) for value in values
            }


@pytest.mark.parametrize("length", [50, 100])
def test_held_looks_at_every_writer_once(length):
    class Looked(tuple):
        looks = 0

        def __getitem__(self, index):
            Looked.looks += 1
            return super().__getitem__(index)

    Looked.looks = 0
    held, writers = Held(Looked(stream(length))), {}
    for position in range(length):
        writers[position] = None
        held.follow(writers.keys())
    assert Looked.looks == length
    assert np.sum(list(held.topics.values())) == length
