"""Orders are carried out by number, however they arrive."""

import itertools

import pytest

from rollout.fleet.in_order import InOrder
from rollout.fleet.messages import Orders


def orders(number: int) -> Orders:
    return Orders(number=number, allowed=0, paused=False)


@pytest.mark.parametrize("arriving", [*itertools.permutations((1, 2, 3, 4))])
def test_orders_are_carried_out_in_the_order_of_their_numbers(arriving: tuple[int, ...]) -> None:
    carried: list[int] = []
    inbox = InOrder(lambda one: carried.append(one.number))
    for count, number in enumerate(arriving, start=1):
        inbox.take(orders(number))
        arrived = set(arriving[:count])
        assert carried == list(itertools.takewhile(arrived.__contains__, itertools.count(1)))
