"""Carries out orders as they were numbered, however they arrive.

Ray runs the calls of an asyncio actor out of order: one whose argument is large waits for Ray's object store, and a
later one goes first. Orders replace one another (`allowed`, `paused`), so an early one that came last would undo later
ones.
"""

from collections.abc import Callable

from rollout.fleet.messages import Orders


class InOrder:
    """The orders of one actor; they are numbered from 1, without gaps."""

    def __init__(self, carry_out: Callable[[Orders], None]) -> None:
        self._carry_out = carry_out
        self._early: dict[int, Orders] = {}  # by number
        self._next = 1

    def take(self, orders: Orders) -> None:
        """Carry out these orders, and those that wait for them; or let these wait for the ones before them."""
        self._early[orders.number] = orders
        while (following := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._carry_out(following)
