"""Where questions recur: the index against a search through the whole stream."""

from random import Random

from agile_ray.agent.environment import Question
from agile_ray.agent.recurrence import Recurrence
from tests.fakes.worlds import changed, question


def questions(seed: int) -> list[Question]:
    random = Random(seed)
    return [
        changed(
            question(number, "does it rust ?", product=random.choice("ab"), knowledge=random.choice(["", "steel"])),
            item=random.choice("xyz"),
        )
        for number in range(20)
    ]


def test_the_index_finds_what_a_search_through_the_stream_finds():
    for seed in range(5):
        given = questions(seed)
        recurrence = Recurrence(given)
        for position, asked in enumerate(given):
            assert recurrence.same_item(position) == tuple(p for p, one in enumerate(given) if one.item == asked.item)
