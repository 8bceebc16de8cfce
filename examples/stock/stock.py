"""A shop's desk: prices by tools, handling by advice.

What several pieces cost takes two calls in one session: the price, then the product. Whether an item is fragile is
drawn for every stream, so only the expert knows, and it is asked about twice. A price that is nearly right earns half.
"""

from collections.abc import Sequence
from random import Random

from agile_ray.agent.environment import Environment, Found, Question, Submission
from agile_ray.agent.functions import Function
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.seeds import derive
from envs.tools import call, with_tools

PRICES = {"lamp": 12, "vase": 9, "chair": 40, "mirror": 25, "bowl": 4, "clock": 31, "shelf": 55, "candle": 2}


async def price(item: str) -> int:
    """The price of one piece of an item."""
    return PRICES[item]


async def multiply(left: int, right: int) -> int:
    """The product of two numbers."""
    return left * right


class Desk:
    """One stream: every item's handling twice, and four prices."""

    reward_range = (0.0, 1.0)

    def __init__(self, *, id: str, questions: Sequence[Question]) -> None:
        self.id = id
        self.questions = questions

    def search(self, query: str) -> Found:
        return Found(text=f"error : no tool for {query}", rows=None, bad_query=True)

    async def judge(self, question: Question, submission: Submission) -> float:
        said = submission.text.strip().lower()
        if said == question.answer:
            return 1.0
        near = (
            question.query and said.isdecimal() and abs(int(said) - int(question.answer)) <= 0.1 * int(question.answer)
        )
        return 0.5 if near else 0.0


class Stock:
    """Every split has streams without end, each drawn from (seed, split, index)."""

    search_function = Function.CALL_TOOL

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def streams(self, split: str) -> None:
        if split not in ("train", "validation", "test"):
            raise ConfigError(f"stock: there is no split {split}")

    def stream(self, *, split: str, index: int) -> Desk:
        self.streams(split)
        random = Random(derive(self._seed, "stock", split, index))
        fragile = {item: random.choice(("yes", "no")) for item in PRICES}
        questions = [_handling(item, fragile[item], way) for way in range(2) for item in PRICES]
        questions += [_cost(random.choice(list(PRICES)), random.randint(2, 9), number) for number in range(4)]
        random.shuffle(questions)
        return Desk(id=f"stock/{split}/{self._seed}/{index}", questions=questions)

    def texts(self) -> Sequence[str]:
        return [f"{one.shown}\n" for index in range(20) for one in self.stream(split="train", index=index).questions]


def _handling(item: str, answer: str, way: int) -> Question:
    text = (f"is the {item} fragile ?", f"must the {item} be packed as fragile ?")[way]
    return Question(id=f"{item}-{way}", text=text, answer=answer, item=item, product=item, kind="handling",
                    guess="no", guess_probability=0.5, guess_drawn=True)  # fmt: skip


def _cost(item: str, pieces: int, number: int) -> Question:
    return Question(
        id=f"cost-{number}", text=f"what do {pieces} pieces of {item} cost ?", answer=str(pieces * PRICES[item]),
        kind="cost", query=call("price", item=item),
        more_queries=(call("multiply", left=pieces, right=PRICES[item]),),
    )  # fmt: skip


def build(env: Env, *, seed: int) -> Environment:
    return with_tools(Stock(seed), price, multiply, deadline_s=env.tool_s)
