"""The best policies on the shop under each way to give credit, computed without training."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from rich.console import Console
from rich.table import Table

from agile_ray.agent.environment import Question
from agile_ray.config import Credit
from envs.shop import Shop, ShopStream

TRAINING_STREAMS = 2000


TEST_STREAMS = 32  # 1536 sessions: those that the sweep's runs are evaluated on


NEAR = 4  # places counted together


BETA = Credit().beta


WIDTH = 190


Place = tuple[str, int]  # stream, position


Streams = Sequence[Sequence[Question]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A question whose answer memory lacks."""

    gain: float  # 1 - g
    expected: float  # E[N]
    chance: float  # P(N > 0)
    later: int  # N


Policy = Callable[[Sight, float], bool]
"""Asks, at a price."""


POLICIES: dict[str, Policy] = {
    "none": lambda sight, price: sight.gain > price,
    "heuristic": lambda sight, price: sight.gain + BETA * sight.chance > price,
    "fitted, linked": lambda sight, price: sight.gain * (1 + sight.expected) > price,
    "oracle": lambda sight, price: sight.gain * (1 + sight.later) > price,
}


class Future:
    """What may be expected of N, by kind of question and place in the stream."""

    def __init__(self, streams: Streams) -> None:
        counted: dict[tuple[str, int], list[int]] = {}
        for questions in streams:
            seen = set[str]()
            for place, question, later in with_later(questions):
                if question.item not in seen:
                    counted.setdefault((question.kind, place // NEAR), []).append(later)
                seen.add(question.item)
        self._expected = {key: mean(found) for key, found in counted.items()}
        self._chance = {key: mean(later > 0 for later in found) for key, found in counted.items()}

    @classmethod
    def counted(cls, seed: int) -> "Future":
        """Counted in the streams that a seed trains on."""
        return cls([stream.questions for stream in streams("train", TRAINING_STREAMS, seed=seed)])

    def sight(self, question: Question, place: int, later: int) -> Sight:
        key = question.kind, place // NEAR
        return Sight(
            gain=1 - question.guess_chance, expected=self._expected[key], chance=self._chance[key], later=later
        )


def with_later(questions: Sequence[Question]) -> Iterator[tuple[int, Question, int]]:
    """Place, question, how many behind it are on its item; without searches, which the tool answers."""
    left = Counter(question.item for question in questions if not question.query)
    for place, question in enumerate(questions):
        if not question.query:
            left[question.item] -= 1
            yield place, question, left[question.item]


def play(streams: Streams, future: Future, policy: Policy, price: float) -> tuple[float, float]:
    """Total score and asked share, per session.

    total = 1 - (price * asks + sum of 1 - g over guesses) / sessions
    """
    lost, asks = 0.0, 0
    for questions in streams:
        held = set[str]()
        for place, question, later in with_later(questions):
            if question.item in held:
                continue
            sight = future.sight(question, place, later)
            if policy(sight, price):
                held.add(question.item)
                asks += 1
                lost += price
            else:
                lost += sight.gain
    sessions = sum(map(len, streams))
    return 1 - lost / sessions, asks / sessions


def streams(split: str, count: int, *, seed: int) -> list[ShopStream]:
    """The first streams of a split."""
    shop = Shop(seed=seed)
    return [shop.stream(split=split, index=index) for index in range(count)]


def show_room(prices: Sequence[float], futures: Mapping[int, Future]) -> None:
    """Print the best policies."""
    table = _table("price", "best by", "total by seed", "mean", "− heuristic", "asked")
    tests = {seed: [one.questions for one in streams("test", TEST_STREAMS, seed=seed)] for seed in futures}
    for price in prices:
        played = {
            name: [play(tests[seed], futures[seed], policy, price) for seed in futures]
            for name, policy in POLICIES.items()
        }
        totals = {name: [total for total, _ in found] for name, found in played.items()}
        for name, found in played.items():
            table.add_row(
                f"{price:g}",
                name,
                " ".join(f"{total:.3f}" for total in totals[name]),
                f"{mean(totals[name]):.3f}",
                f"{mean(totals[name]) - mean(totals['heuristic']):+.4f}",
                f"{mean(asked for _, asked in found):.3f}",
            )
    Console(width=WIDTH).print(table)


def _table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place == 1 else "right", no_wrap=True)
    return table
