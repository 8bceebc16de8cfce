"""A minimal environment in which advice pays off in later sessions: items, each asked about several times.

    recurring         ITEMS items in an episode, which one iteration can collect
    recurring_long    LONG_ITEMS items with names of two words, so that an iteration sees only a part of an episode

An episode draws its items and asks about each of them RECUR times, in random order. An item's hidden answer is drawn
for every episode: yes or no with equal probability. So a guess is right half of the time, whatever the policy has
learned, while advice is always right and is remembered under the item. There is no tool.

With m = RECUR, probability g of a right guess, and price c, the sessions on one item earn in total

    asked in the first one   m - c          more than never asked if c < m (1 - g) = 1.5
    never asked              m g = 1.5

A session on its own gains by asking only if c < 1 - g = 0.5. Between these prices asking is optimal, but only credit
across sessions can show it. A bonus of 0.1 for questions that recur suffices at a price of 0.55, but not at 0.7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from agile_ray.agent.environment import Found, Question, Submission
from agile_ray.agent.functions import Function
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.seeds import derive

ITEMS = 8
"""Items in one episode of `recurring`."""
LONG_ITEMS = 667
"""Items in one episode of `recurring_long`."""
RECUR = 3
"""Questions about each item of an episode."""
LENGTH = ITEMS * RECUR
"""Sessions in one episode of `recurring`."""
SPLITS = ("train", "validation", "test")
ANSWERS = ("yes", "no")
GUESS = ANSWERS[0]

POOL = (
    "accordion", "anchor", "apricot", "badminton", "balloon", "bathtub", "bicycle", "blanket", "bracelet", "broccoli",
    "cabinet", "calendar", "cathedral", "caterpillar", "chandelier", "coconut", "compass", "crocodile", "cucumber",
    "dictionary", "dinosaur", "dolphin", "elephant", "envelope", "feather", "firework", "flamingo", "galaxy", "giraffe",
    "guitar", "hammock", "hurricane", "jellyfish", "kangaroo", "keyboard", "lantern", "lighthouse", "magazine",
    "mandolin", "microscope", "mosquito", "mountain", "mushroom", "orchestra", "parachute", "penguin", "pineapple",
    "pyramid", "sandwich", "satellite", "skeleton", "snowman", "spaghetti", "squirrel", "submarine", "sunflower",
    "tortoise", "trampoline", "umbrella", "volcano", "walnut", "waterfall", "windmill", "xylophone",
)  # fmt: skip
"""Items of all splits. Their names are long, so that the hashed embedder tells questions about two items apart."""

_NO_TOOL = Found(text="error : there is no tool", rows=(), bad_query=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One of the environments of this file."""

    name: str
    items: int  # in one episode
    pool: tuple[str, ...]  # names of all items; two of them never have the same words


SHORT = Family(name="recurring", items=ITEMS, pool=POOL)
LONG = Family(name="recurring_long", items=LONG_ITEMS, pool=tuple(map(" ".join, combinations(POOL, 2))))


class Recurring:
    """Every split has infinitely many streams, each drawn from (seed, split, index)."""

    search_function = Function.SEARCH_PRODUCT  # the protocol requires one; each call is refused

    def __init__(self, *, seed: int, family: Family = SHORT) -> None:
        self._seed = seed
        self._family = family

    def stream(self, *, split: str, index: int) -> "RecurringStream":
        """The episode with this index.

        Raises:
            ConfigError: no such split.
        """
        self.streams(split)
        name = self._family.name
        random = Random(derive(self._seed, name, split, index))
        return RecurringStream(
            id=f"{name}/{split}/{self._seed}/{index}",
            questions=_draw(random, pool=self._family.pool, items=self._family.items),
        )

    def streams(self, split: str) -> None:
        """None: every split has infinitely many streams.

        Raises:
            ConfigError: no such split.
        """
        if split not in SPLITS:
            raise ConfigError(f"{self._family.name}: the splits are {', '.join(SPLITS)}; found {split}")

    def texts(self) -> Sequence[str]:
        """All texts of the environment, each once; the splits share them."""
        pool = self._family.pool
        said = [f"history : {_words(item)} {answer}" for item in pool for answer in ANSWERS]
        written = [f" {answer}" for answer in ANSWERS]
        return (*map(_words, pool), *said, *written, "knowledge : no information", _NO_TOOL.text)


class RecurringStream:
    """The questions of one episode, and their judge."""

    def __init__(self, *, id: str, questions: tuple[Question, ...]) -> None:
        self.id = id
        self.questions = questions

    def search(self, query: str) -> Found:
        """Refuse every query, since there is no tool."""
        del query
        return _NO_TOOL

    def judge(self, question: Question, submission: Submission) -> bool:
        """Compare with the answer, ignoring case and repeated spaces."""
        return " ".join(submission.text.lower().split()) == question.answer


def build(env: Env, *, seed: int) -> Recurring:
    """Build the family that `env.name` selects.

    Raises:
        ConfigError: the config names files or categories; this environment has none.
    """
    given = [name for name in ("data", "categories") if getattr(env, name)]
    if given:
        raise ConfigError(f"env.{given[0]}: {env.name} draws its own, found {getattr(env, given[0])}; leave it out")
    return Recurring(seed=seed, family=LONG if env.name == LONG.name else SHORT)


def _draw(random: Random, *, pool: Sequence[str], items: int) -> tuple[Question, ...]:
    """Draw the questions of an episode, in order."""
    answers = {item: random.choice(ANSWERS) for item in random.sample(pool, items)}
    order = [item for item in answers for _ in range(RECUR)]
    random.shuffle(order)
    return tuple(
        Question(
            id=f"q{position}",
            product=item,  # so memory returns the item's own entry or none
            kind="item",
            topic="item",
            text=_words(item),
            shown=_words(item),
            item=item,
            answer=answers[item],
            advice=answers[item],
            knowledge="",
            query="",
            guess=GUESS,
            guess_probability=1 / len(ANSWERS),
            guess_drawn=True,
        )
        for position, item in enumerate(order)
    )


def _words(item: str) -> str:
    return f"is {item} ok ?"
