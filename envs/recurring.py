"""A minimal environment in which advice pays off in later sessions: a few items, each asked about several times.

An episode draws ITEMS items and asks about each of them RECUR times, in random order. An item's hidden answer is drawn
for every episode: yes or no with equal probability. So a guess is right half of the time, whatever the policy has
learned, while advice is always right and is remembered under the item. There is no tool.

With m = RECUR, probability g of a right guess, and price c, the sessions on one item earn in total

    asked in the first one   m - c          more than never asked if c < m (1 - g) = 1.5
    never asked              m g = 1.5

A session on its own gains by asking only if c < 1 - g = 0.5. Between these prices asking is optimal, but only credit
across sessions can show it. A bonus of 0.1 for questions that recur suffices at a price of 0.55, but not at 0.7.
"""

from collections.abc import Sequence
from random import Random

from agile_ray.agent.environment import Found, Question, Submission
from agile_ray.agent.functions import Function
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.seeds import derive

ITEMS = 8
"""Items in one episode."""
RECUR = 3
"""Questions about each item of an episode."""
LENGTH = ITEMS * RECUR
"""Sessions in one episode."""
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


class Recurring:
    """Every split has infinitely many streams, each drawn from (seed, split, index)."""

    search_function = Function.SEARCH_PRODUCT  # the protocol requires one; each call is refused

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def stream(self, *, split: str, index: int) -> "RecurringStream":
        """The episode with this index.

        Raises:
            ConfigError: no such split.
        """
        self.streams(split)
        random = Random(derive(self._seed, "recurring", split, index))
        return RecurringStream(id=f"recurring/{split}/{self._seed}/{index}", questions=_draw(random))

    def streams(self, split: str) -> None:
        """None: every split has infinitely many streams.

        Raises:
            ConfigError: no such split.
        """
        if split not in SPLITS:
            raise ConfigError(f"recurring: the splits are {', '.join(SPLITS)}; found {split}")

    def texts(self) -> Sequence[str]:
        """All texts of the environment, each once; the splits share them."""
        said = [f"history : {_words(item)} {answer}" for item in POOL for answer in ANSWERS]
        written = [f" {answer}" for answer in ANSWERS]
        return (*map(_words, POOL), *said, *written, "knowledge : no information", _NO_TOOL.text)


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
    """Build from the config.

    Raises:
        ConfigError: the config names files or categories; this environment has none.
    """
    given = [name for name in ("data", "categories") if getattr(env, name)]
    if given:
        raise ConfigError(f"env.{given[0]}: recurring draws its own, found {getattr(env, given[0])}; leave it out")
    return Recurring(seed=seed)


def _draw(random: Random) -> tuple[Question, ...]:
    """Draw the questions of an episode, in order."""
    answers = {item: random.choice(ANSWERS) for item in random.sample(POOL, ITEMS)}
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
