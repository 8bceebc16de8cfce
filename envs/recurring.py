"""The smallest environment in which asking today pays tomorrow: a few items, each asked several times in an episode.

An episode draws ITEMS items and asks for each of them RECUR times, in a random order. An item's hidden answer is drawn
anew for every episode, yes or no with equal chance: a guess is right half of the time, whatever was learned, and advice
is right and remembered under the item. There is no tool. With m = RECUR, guess chance g and price c, one item earns

    asked at first sight   m - c          best where c < m (1 - g), which is 1.5
    never asked            m g = 1.5

and a session by itself gains by asking only where c < 1 - g = 0.5. Between these prices asking is right, and only
credit across sessions can tell: at 0.55 a bonus of 0.1 for what may be asked again is enough, at 0.7 it is not.
"""

from collections.abc import Sequence
from random import Random

from agile_ray.agent.environment import Found, Question, Submission
from agile_ray.agent.functions import NO_INFORMATION, Function
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.seeds import derive

ITEMS = 8
"""Items in one episode."""
RECUR = 3
"""Questions on each of them."""
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
"""What items are drawn from, in every split. Long words, so that the hashed embedder tells their questions apart."""

_NO_TOOL = Found(text="error : there is no tool", rows=(), bad_query=True)


class Recurring:
    """Endless streams; what is hidden is drawn from (seed, split, index)."""

    search_function = Function.SEARCH_PRODUCT  # every policy needs one to try

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def stream(self, *, split: str, index: int) -> "RecurringStream":
        """The episode of that index.

        Raises:
            ConfigError: there is no such split.
        """
        self.streams(split)
        random = Random(derive(self._seed, "recurring", split, index))
        return RecurringStream(id=f"recurring/{split}/{self._seed}/{index}", questions=_draw(random))

    def streams(self, split: str) -> None:
        """No end, in any split.

        Raises:
            ConfigError: there is no such split.
        """
        if split not in SPLITS:
            raise ConfigError(f"recurring: the splits are {', '.join(SPLITS)}; found {split}")

    def texts(self) -> Sequence[str]:
        """Everything there is, once: a split would add nothing, since all draw from one pool."""
        said = [f"history : {_words(item)} {answer}" for item in POOL for answer in ANSWERS]
        written = [f" {answer}" for answer in ANSWERS]
        return (*map(_words, POOL), *said, *written, f"knowledge : {NO_INFORMATION}", _NO_TOOL.text)


class RecurringStream:
    """One episode's questions and judge."""

    def __init__(self, *, id: str, questions: tuple[Question, ...]) -> None:
        self.id = id
        self.questions = questions

    def search(self, query: str) -> Found:
        """Refuse any query: there is no tool."""
        del query
        return _NO_TOOL

    def judge(self, question: Question, submission: Submission) -> bool:
        """Words must equal the answer, whatever their case."""
        return " ".join(submission.text.lower().split()) == question.answer


def build(env: Env, *, seed: int) -> Recurring:
    """Build from the config.

    Raises:
        ConfigError: the config names files or categories; there are none here.
    """
    given = [name for name in ("data", "categories", "validation_categories", "test_categories") if getattr(env, name)]
    if given:
        raise ConfigError(f"env.{given[0]}: recurring draws its own, found {getattr(env, given[0])}; leave it out")
    return Recurring(seed=seed)


def _draw(random: Random) -> tuple[Question, ...]:
    """The questions of an episode, in order."""
    answers = {item: random.choice(ANSWERS) for item in random.sample(POOL, ITEMS)}
    order = [item for item in answers for _ in range(RECUR)]
    random.shuffle(order)
    return tuple(
        Question(
            id=f"q{position}",
            product=item,  # memory returns the item's own entry or none, never a neighbour's
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
            guess_chance=1 / len(ANSWERS),
        )
        for position, item in enumerate(order)
    )


def _words(item: str) -> str:
    return f"is {item} ok ?"
