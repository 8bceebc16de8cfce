"""What the shop holds for each way to give credit, on a stream small enough to do by hand."""

from dataclasses import replace

import pytest

from benchmarks.credit import POLICIES, Future, play
from envs.shop import Shop

FACT = next(question for question in Shop(seed=0).stream(split="train", index=0).questions if question.kind == "fact")
STREAM = [replace(FACT, item=item, guess_chance=0.5) for item in "aaaax"]  # x: where places are counted anew
NEVER = 1 - 5 * 0.5 / 5


@pytest.mark.parametrize(
    ("name", "price", "total", "asked"),
    [
        ("none", 0.45, 1 - 2 * 0.45 / 5, 2 / 5),  # at first sights; repeats are free
        ("none", 0.55, NEVER, 0),
        ("heuristic", 0.55, 1 - (0.55 + 0.5) / 5, 1 / 5),  # 0.5 + 0.1 > 0.55, for the item that comes again
        ("heuristic", 0.65, NEVER, 0),
        ("fitted, linked", 1.9, 1 - (1.9 + 0.5) / 5, 1 / 5),  # 0.5 * (1 + 3) > 1.9
        ("fitted, linked", 2.1, NEVER, 0),
        ("oracle", 1.9, 1 - (1.9 + 0.5) / 5, 1 / 5),
        ("oracle", 2.1, NEVER, 0),
    ],
)
def test_each_policy_asks_where_what_it_trains_on_is_worth_the_price(name, price, total, asked):
    assert play([STREAM], Future([STREAM]), POLICIES[name], price) == pytest.approx((total, asked))


def test_what_to_expect_is_the_mean_over_first_sights():
    future = Future([STREAM, [replace(question, item=str(place)) for place, question in enumerate(STREAM)]])
    assert future.sight(STREAM[0], 0, 3).expected == pytest.approx((3 + 0 + 0 + 0 + 0) / 5)
    assert future.sight(STREAM[0], 0, 3).chance == pytest.approx(1 / 5)
