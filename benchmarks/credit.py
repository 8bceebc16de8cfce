"""What the shop holds for each way to give credit: the policies that are best by what each trains on, played out.

    python benchmarks/credit.py                       the prices and seeds of `agile-ray sweep credit`
    python benchmarks/credit.py 0.7 0.8 --seeds 5     other prices; seeds 0 to 4

Nothing is trained and no engine starts. A session asks or guesses. Advice is right and is remembered; a guess is right
with chance g, and is counted at that. A policy sees the kind of question, g, the place in the stream, and whether
memory holds the answer. N later questions are on the same item; what to expect of N, at the first sight of an item, is
counted in streams of the training categories. Where memory lacks the answer, advice at price c is asked for if

    none             1 - g > c                      it pays in this session
    heuristic        1 - g + beta * P(N > 0) > c    with the bonus (AGILE, eq. 7; nothing similar is stored)
    fitted, linked   (1 - g) * (1 + E[N]) > c       with what the answer is worth to the sessions behind it
    oracle           (1 - g) * (1 + N) > c          it knows N

Nothing that a policy sees tells more of N: memory keeps no trace of an item that was guessed. So what lies between two
of the totals is all that one way to give credit can be ahead of another on these questions.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from rich.console import Console
from rich.table import Table

from agile_ray.config import Credit
from agile_ray.task import Question
from envs.shop import Shop

TRAINING_STREAMS = 2000
TEST_STREAMS = 32  # 1536 sessions: those that the sweep's runs are evaluated on
NEAR = 4  # places counted together
BETA = Credit().beta
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
            for place, question, later in _with_later(questions):
                if question.item not in seen:
                    counted.setdefault((question.kind, place // NEAR), []).append(later)
                seen.add(question.item)
        self._expected = {key: mean(found) for key, found in counted.items()}
        self._chance = {key: mean(later > 0 for later in found) for key, found in counted.items()}

    def sight(self, question: Question, place: int, later: int) -> Sight:
        key = question.kind, place // NEAR
        return Sight(
            gain=1 - question.guess_chance, expected=self._expected[key], chance=self._chance[key], later=later
        )


def _with_later(questions: Sequence[Question]) -> Iterator[tuple[int, Question, int]]:
    """Place, question, how many behind it are on its item; without searches, which the tool answers."""
    left = Counter(question.item for question in questions if not question.query)
    for place, question in enumerate(questions):
        if not question.query:
            left[question.item] -= 1
            yield place, question, left[question.item]


def play(streams: Streams, future: Future, policy: Policy, price: float) -> tuple[float, float]:
    """Total score and asked share, per session."""
    lost, asks = 0.0, 0
    for questions in streams:
        held = set[str]()
        for place, question, later in _with_later(questions):
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


def streams(split: str, count: int, *, seed: int) -> Streams:
    """The first streams of a split."""
    shop = Shop(seed=seed)
    return [shop.stream(split=split, index=index).questions for index in range(count)]


def main() -> None:
    """Play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prices", nargs="*", type=float, default=[0.3, 0.5, 0.9])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default: 3)")
    given = parser.parse_args()
    printed = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("price", "best by", "total by seed", "mean", "− heuristic", "asked"):
        printed.add_column(title, justify="left" if title == "best by" else "right", no_wrap=True)
    futures = {seed: Future(streams("train", TRAINING_STREAMS, seed=seed)) for seed in range(given.seeds)}
    tests = {seed: streams("test", TEST_STREAMS, seed=seed) for seed in range(given.seeds)}
    for price in given.prices:
        played = {
            name: [play(tests[seed], futures[seed], policy, price) for seed in futures]
            for name, policy in POLICIES.items()
        }
        totals = {name: [total for total, _ in found] for name, found in played.items()}
        for name, found in played.items():
            printed.add_row(
                f"{price:g}",
                name,
                " ".join(f"{total:.3f}" for total in totals[name]),
                f"{mean(totals[name]):.3f}",
                f"{mean(totals[name]) - mean(totals['heuristic']):+.4f}",
                f"{mean(asked for _, asked in found):.3f}",
            )
    Console(width=120).print(printed)


if __name__ == "__main__":
    main()
