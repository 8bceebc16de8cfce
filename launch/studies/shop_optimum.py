"""The best asking rules on the shop, one for each credit mode, computed without training.

A session asks or guesses. Advice is right and remembered; a guess is right with probability g, which the shop knows. A
rule sees the kind of question, g, the position in the stream, and whether memory holds the answer. N later questions
are on the same item; the distribution of N for a new item is counted in training streams. Where memory lacks the
answer, a rule asks for advice at price c if

    none             1 - g > c                      it pays in this session
    heuristic        1 - g + beta * P(N > 0) > c    with the bonus of AGILE, eq. 7; nothing similar is stored
    fitted, linked   (1 - g) * (1 + E[N]) > c       with the value of the answer for later sessions
    oracle           (1 - g) * (1 + N) > c          it knows N

Nothing else that a rule sees predicts N, so the difference between two totals bounds what one mode can gain over the
other on these questions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from agile_ray.agent.environment import Question
from agile_ray.config import Credit
from agile_ray.scripted.optimum import Outcome, outcome, without_tool, worth_asking
from envs.shop import Shop, ShopStream
from launch.report.console import plain_console
from launch.report.plain_table import plain_table

TRAINING_STREAMS = 2000
TEST_STREAMS = 32
"""1536 sessions: those of the final evaluation."""
NEAR = 4
"""Number of neighbouring positions whose counts are pooled."""
BETA = Credit().beta
WIDTH = 190
"""Characters of a printed line."""

Streams = Sequence[Sequence[Question]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A question whose answer memory lacks."""

    question: Question
    expected: float  # E[N]
    probability: float  # P(N > 0)
    later: int  # N


AskingRule = Callable[[Sight, float], bool]
"""Whether to ask, at a price in thousandths."""

RULES: dict[str, AskingRule] = {
    "none": lambda sight, price: worth_asking(sight.question, uses=1, price=price),
    "heuristic": lambda sight, price: worth_asking(
        sight.question, uses=1, price=price - 1000 * BETA * sight.probability
    ),
    "fitted, linked": lambda sight, price: worth_asking(sight.question, uses=1 + sight.expected, price=price),
    "oracle": lambda sight, price: worth_asking(sight.question, uses=1 + sight.later, price=price),
}


class Future:
    """The distribution of N, by kind of question and position in the stream."""

    def __init__(self, streams: Streams) -> None:
        counted: dict[tuple[str, int], list[int]] = {}
        for questions in streams:
            seen = set[str]()
            for position, question, later in without_tool(questions):
                if question.item not in seen:
                    counted.setdefault((question.kind, position // NEAR), []).append(later)
                seen.add(question.item)
        self._expected = {key: mean(found) for key, found in counted.items()}
        self._probability = {key: mean(later > 0 for later in found) for key, found in counted.items()}

    @classmethod
    def counted(cls, seed: int) -> "Future":
        """The distribution in the streams that a seed trains on."""
        return cls([stream.questions for stream in streams("train", TRAINING_STREAMS, seed=seed)])

    def sight(self, question: Question, position: int, later: int) -> Sight:
        """What a rule knows about a question."""
        key = question.kind, position // NEAR
        return Sight(question=question, expected=self._expected[key], probability=self._probability[key], later=later)


def play(streams: Streams, future: Future, asks: AskingRule, price: float) -> Outcome:
    """The expected outcome of a rule.

    Args:
        price: of one ask, in thousandths.
    """
    return outcome(
        streams,
        lambda position, question, later: asks(future.sight(question, position, later), price),
        price=price,
    )


def streams(split: str, count: int, *, seed: int) -> list[ShopStream]:
    """The first streams of a split."""
    shop = Shop(seed=seed)
    return [shop.stream(split=split, index=index) for index in range(count)]


def show(prices: Sequence[float], futures: Mapping[int, Future]) -> None:
    """Print the outcome of every rule.

    Args:
        prices: of one ask, in units of the reward for a right answer.
        futures: by seed.
    """
    table = plain_table("price", "best by", "total by seed", "mean", "− heuristic", "asked", left=("best by",))
    tests = {seed: [one.questions for one in streams("test", TEST_STREAMS, seed=seed)] for seed in futures}
    for price in prices:
        outcomes = {
            name: [play(tests[seed], futures[seed], rule, 1000 * price) for seed in futures]
            for name, rule in RULES.items()
        }
        totals = {name: [one.total for one in found] for name, found in outcomes.items()}
        for name, found in outcomes.items():
            table.add_row(
                f"{price:g}",
                name,
                " ".join(f"{total:.3f}" for total in totals[name]),
                f"{mean(totals[name]):.3f}",
                f"{mean(totals[name]) - mean(totals['heuristic']):+.4f}",
                f"{mean(one.asked_share for one in found):.3f}",
            )
    plain_console(width=WIDTH).print(table)
