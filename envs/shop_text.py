"""The vocabulary of the shop: words that all categories draw from, topics with their answers, and phrasings.

All text is lower-case, regular and short, and every word occurs in every split, so that a small model learns to read it
in minutes. Words that distinguish questions are long and words of phrasings are short, because the hashed n-gram
embedder weighs a word by its length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MODIFIERS = (
    "trail", "studio", "harbor", "garden", "winter", "summer", "desert", "island", "forest", "river",
    "city", "valley", "kitchen", "office", "travel", "sport", "junior", "senior", "night", "market",
)  # fmt: skip
NOUNS = (
    "lamp", "kettle", "chair", "bottle", "jacket", "helmet", "ladder", "basket", "mirror", "drum",
    "tent", "clock", "wagon", "blanket", "camera", "kayak", "pillow", "shelf", "towel", "whistle",
)  # fmt: skip

COLUMNS: dict[str, tuple[str, ...]] = {
    "color": ("crimson", "emerald", "turquoise", "lavender", "charcoal", "saffron"),
    "material": ("aluminium", "bamboo", "leather", "porcelain", "titanium", "concrete"),
    "shape": ("circular", "hexagon", "spherical", "rectangle", "conical", "twisted"),
    "style": ("vintage", "minimal", "nautical", "baroque", "futurist", "country"),
    "pattern": ("striped", "dotted", "checkered", "floral", "marbled", "paisley"),
    "surface": ("polished", "brushed", "lacquered", "engraved", "unglazed", "hammered"),
    "closure": ("zippered", "buckled", "velcro", "drawstring", "magnetic", "hinged"),
    "target": ("toddler", "student", "athlete", "musician", "gardener", "plumber"),
}
"""Text columns and their values; each value belongs to one column."""

MEASURES = ("weight", "height", "volume", "rating")
"""Numeric columns other than the price."""

WORD_COLUMNS = 3  # in one category
PRICES = tuple(range(10, 100, 5))
AMOUNTS = tuple(range(1, 13))


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A property that questions ask about; one word names it.

    Its answers are drawn for every episode: the first with probability `guess_probability`, the others equally likely.
    """

    word: str
    answers: tuple[str, ...]
    guess_probability: float

    @property
    def guess(self) -> str:
        """The most probable answer."""
        return self.answers[0]

    @property
    def closed(self) -> bool:
        """Whether it is a yes-or-no question."""
        return "yes" in self.answers

    @property
    def weights(self) -> tuple[float, ...]:
        """Probabilities of the answers."""
        rest = (1.0 - self.guess_probability) / (len(self.answers) - 1)
        return (self.guess_probability, *(rest for _ in self.answers[1:]))


_YES = ("yes", "no")
_NO = ("no", "yes")
_GRADES = ("great", "fair", "poor", "awful", "superb", "decent", "weak", "solid")


def _topics(*rows: tuple[str, Sequence[str], float]) -> tuple[Topic, ...]:
    return tuple(Topic(word=word, answers=tuple(answers), guess_probability=g) for word, answers, g in rows)


# A guess that fails with probability m = 1 - g is worth less than advice at price c if and only if m > c; with AGILE's
# bonus of 0.1, if and only if m > c - 0.1. No m lies within 0.04 of the prices 0.15, 0.3, 0.5, nor of 0.05, 0.2, 0.4:
# no optimal decision at these prices is close to a tie. Between any two of the prices 0.1, 0.15, ..., 0.5 there is n m
# for some topic and some number n of uses, so the optimal share of asks falls from each price to the next. Most topics
# are either easy or hard, so a policy that compares m with c alone is near the optimum; memory adds the rest.
ASPECTS = _topics(
    ("breakable", _YES, 0.905),
    ("waterproof", _NO, 0.905),
    ("secondhand", _NO, 0.895),
    ("returnable", _YES, 0.895),
    ("odorless", _YES, 0.755),
    ("rechargeable", _NO, 0.745),
    ("handmade", _NO, 0.645),
    ("flammable", _YES, 0.555),
    ("packaging", ("carton", "paper", "plastic", "canvas", "foil", "jute"), 0.35),
    ("warehouse", ("oslo", "lima", "cairo", "delhi", "quito", "perth"), 0.35),
    ("ingredient", ("wax", "resin", "clay", "cotton", "cork", "wool", "silk"), 0.25),
    ("accessory", ("strap", "pouch", "hook", "stand", "brush", "cable", "lid"), 0.25),
    ("guarantee", ("week", "month", "season", "year", "decade", "lifetime", "never", "trial", "day", "century"), 0.1),
    ("manufacturer", ("acme", "borea", "calyx", "dorado", "elmo", "fjord", "gusto", "helio", "indigo", "juno"), 0.1),
)
"""Topics of hidden facts about single products."""

USES = _topics(
    ("camping", _YES, 0.905),
    ("children", _NO, 0.905),
    ("swimming", _NO, 0.895),
    ("transport", _YES, 0.895),
    ("painting", _YES, 0.745),
    ("breakfast", _NO, 0.645),
    ("dancing", ("great", "fair", "poor", "awful"), 0.35),
    ("hospitals", ("poor", "great", "fair", "awful"), 0.35),
    ("fishing", _GRADES[::-1], 0.25),
    ("weddings", _GRADES, 0.25),
)
"""Topics of hidden rules of a category: what all products with a certain value are good for."""

# No phrasing begins with a word that may be copied: in a byte-level tokenizer, a word after a space and the same word
# at the start of a line are different tokens. For the same reason a search quotes its values, as the query does.
_ASPECT_PHRASES = {
    True: ("is it {topic} ?", "is it {topic} or no ?", "so it is {topic} ?", "say is it {topic} ?"),
    False: ("its {topic} ?", "what is its {topic} ?", "so its {topic} is ?", "say its {topic} ?"),
}
_USE_PHRASES = {
    True: (
        "is {value} ok for {topic} ?",
        "can {value} do {topic} ?",
        "so {value} for {topic} ok ?",
        "is {value} for {topic} ?",
    ),
    False: (
        "how is {value} for {topic} ?",
        "so {value} for {topic} is how ?",
        "how {value} in {topic} ?",
        "say how {value} for {topic} ?",
    ),
}
_SEARCH_PHRASES = ("find all with {conditions}", "which have {conditions} ?", "list any with {conditions}")
_COMPARISONS = {"=": "", "<": "below ", ">": "above "}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of a search."""

    column: str
    operator: str  # "=" on words, "<" or ">" on numbers
    value: str | int

    @property
    def words(self) -> str:
        """The condition in the user's words, which contain everything that the query needs."""
        return f"{self.column} {_COMPARISONS[self.operator]}{self.value!r}"

    @property
    def sql(self) -> str:
        """The condition in SQL."""
        return f"{self.column} {self.operator} {self.value!r}"

    def holds(self, value: str | int) -> bool:
        """Whether a product's value meets the condition."""
        if isinstance(value, int) and isinstance(self.value, int):
            return value < self.value if self.operator == "<" else value > self.value
        return value == self.value


def aspect_phrases(topic: Topic) -> tuple[str, ...]:
    """All phrasings of a question about an aspect of one product."""
    return tuple(phrase.format(topic=topic.word) for phrase in _ASPECT_PHRASES[topic.closed])


def use_phrases(topic: Topic, value: str) -> tuple[str, ...]:
    """All phrasings of a question about a use of products with this value."""
    return tuple(phrase.format(topic=topic.word, value=value) for phrase in _USE_PHRASES[topic.closed])


def search_phrases(conditions: Sequence[Condition]) -> tuple[str, ...]:
    """All phrasings of a search for the products that meet the conditions."""
    words = " and ".join(condition.words for condition in conditions)
    return tuple(phrase.format(conditions=words) for phrase in _SEARCH_PHRASES)


def query(table: str, conditions: Sequence[Condition]) -> str:
    """The gold query of a search."""
    return f"SELECT product_id FROM {table} WHERE " + " AND ".join(condition.sql for condition in conditions)


def rule(topic: Topic, value: str, answer: str) -> str:
    """The knowledge that a rule teaches, as text."""
    return f"{value} {topic.word} : {answer}"
