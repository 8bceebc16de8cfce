"""One episode of the shop, drawn from a seed: a category's table, hidden facts and rules, and a sequence of questions.

category   two words and a fixed set of columns: `trail_lamp` has the same columns in every episode
products   a table that the agent may query, drawn for every episode
facts      (product, aspect) -> answer, hidden
rules      (value of a column, use) -> answer, hidden, the same for all products with the value
sequence   facts and rules recur with Zipf frequencies; no search occurs twice
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random

from agile_ray.agent.environment import Question
from agile_ray.seeds import derive
from envs import shop_text as text
from envs.shop_text import Condition, Topic

LENGTH = 48
"""Sessions in one episode."""

_PRODUCTS = 20
_FACTS = 22  # hidden facts that can be asked about in one episode
_RULES = 20
_ZIPF = 0.9  # the k-th item of a kind is asked with probability proportional to 1 / k^0.9
_KINDS = ("fact", "reasoning", "search")
_SHARES = (0.4, 0.35, 0.25)
_MOST_ROWS = 5  # a search is drawn again until it finds 1 to 5 products


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A kind of product."""

    name: str  # also the name of its table
    columns: tuple[str, ...]  # with text; every table also has product_id, price and the measure
    measure: str  # a numeric column


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A row of the table."""

    id: str
    values: dict[str, str | int]  # column -> value, without the id

    def listing(self, table: str) -> str:
        """The product's page as the policy reads it: each column with the product's value."""
        return f"table {table} product_id {self.id} " + " ".join(
            f"{name} {value}" for name, value in self.values.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """The content of one stream."""

    category: Category
    products: tuple[Product, ...]
    questions: tuple[Question, ...]


def categories(split: str) -> tuple[Category, ...]:
    """The categories of a split: 320 to train on, 40 to validate, 40 to test; every word occurs in every split."""
    return tuple(
        category(f"{modifier}_{noun}")
        for first, modifier in enumerate(text.MODIFIERS)
        for second, noun in enumerate(text.NOUNS)
        if _split(first + second) == split
    )


def _split(diagonal: int) -> str:
    return {8: "validation", 9: "test"}.get(diagonal % 10, "train")


def category(name: str) -> Category:
    """The category with this name; its columns depend only on the name."""
    random = Random(derive(0, "shop", "category", name))
    return Category(
        name=name,
        columns=tuple(random.sample(sorted(text.COLUMNS), text.WORD_COLUMNS)),
        measure=random.choice(text.MEASURES),
    )


def draw(category: Category, random: Random) -> Episode:
    """Draw an episode."""
    products = tuple(_product(f"p{number}", category, random) for number in range(1, _PRODUCTS + 1))
    source = _QuestionSource(category, products, random)
    questions = tuple(
        replace(source.next(kind), id=f"q{position}")
        for position, kind in enumerate(random.choices(_KINDS, _SHARES, k=LENGTH))
    )
    return Episode(category=category, products=products, questions=questions)


def _product(id: str, category: Category, random: Random) -> Product:
    values: dict[str, str | int] = {"price": random.choice(text.PRICES), category.measure: random.choice(text.AMOUNTS)}
    values |= {column: random.choice(text.COLUMNS[column]) for column in category.columns}
    return Product(id=id, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fact:
    product: Product
    topic: Topic
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    value: str
    holders: tuple[Product, ...]
    topic: Topic
    answer: str


class _QuestionSource:
    """Draws the questions of one episode, one by one."""

    def __init__(self, category: Category, products: Sequence[Product], random: Random) -> None:
        self._category = category
        self._products = products
        self._random = random
        self._facts = [
            _Fact(product=product, topic=topic, answer=_answer(topic, random))
            for product, topic in random.sample([(p, t) for p in products for t in text.ASPECTS], _FACTS)
        ]
        holders = _holders(category, products)
        self._rules = [
            _Rule(value=value, holders=holders[value], topic=topic, answer=_answer(topic, random))
            for value, topic in random.sample([(v, t) for v in holders for t in text.USES], _RULES)
        ]
        self._searched: set[tuple[Condition, ...]] = set()

    def next(self, kind: str) -> Question:
        """Draw the next question of a kind; its id is empty."""
        return {"fact": self._fact, "reasoning": self._reasoning, "search": self._search}[kind]()

    def _fact(self) -> Question:
        fact = self._random.choices(self._facts, cum_weights=_FACT_WEIGHTS)[0]
        return self._question(
            kind="fact",
            topic=_class_of("fact", fact.topic),
            product=fact.product,
            words=self._random.choice(text.aspect_phrases(fact.topic)),
            item=f"{fact.product.id} {fact.topic.word}",
            answer=fact.answer,
            guess=fact.topic.guess,
            guess_probability=fact.topic.guess_probability,
        )

    def _reasoning(self) -> Question:
        rule = self._random.choices(self._rules, cum_weights=_RULE_WEIGHTS)[0]
        return self._question(
            kind="reasoning",
            topic=_class_of("reasoning", rule.topic),
            product=self._random.choice(rule.holders),
            words=self._random.choice(text.use_phrases(rule.topic, rule.value)),
            item=f"{rule.value} {rule.topic.word}",
            answer=rule.answer,
            knowledge=text.rule(rule.topic, rule.value, rule.answer),
            guess=rule.topic.guess,
            guess_probability=rule.topic.guess_probability,
        )

    def _search(self) -> Question:
        conditions, rows = next(
            (conditions, rows)
            for conditions in _conditions(self._category, self._products, self._random)
            if conditions not in self._searched and 1 <= len(rows := _rows(self._products, conditions)) <= _MOST_ROWS
        )
        self._searched.add(conditions)
        return self._question(
            kind="search",
            topic="search",
            product=self._random.choice(self._products),
            words=self._random.choice(text.search_phrases(conditions)),
            item=" ".join(condition.words for condition in conditions),
            answer=" ".join(rows),
            query=text.query(self._category.name, conditions),
            guess="none",
            guess_probability=0.0,
        )

    def _question(
        self,
        *,
        kind: str,
        topic: str,
        product: Product,
        words: str,
        item: str,
        answer: str,
        knowledge: str = "",
        query: str = "",
        guess: str,
        guess_probability: float,
    ) -> Question:
        return Question(
            id="",
            product=product.id,
            kind=kind,
            topic=topic,
            text=words,
            shown=f"{product.listing(self._category.name)}\n{words}",
            item=item,
            answer=answer,
            advice=answer,
            knowledge=knowledge,
            query=query,
            guess=guess,
            guess_probability=guess_probability,
            guess_drawn=not query,
        )


def _zipf(count: int) -> tuple[float, ...]:
    """Cumulative weights of ranks 1 to `count`."""
    return tuple(accumulate(1.0 / rank**_ZIPF for rank in range(1, count + 1)))


_FACT_WEIGHTS = _zipf(_FACTS)
_RULE_WEIGHTS = _zipf(_RULES)


def _class_of(kind: str, topic: Topic) -> str:
    """The question's topic. Yes-or-no questions are easier to guess, so remembering their answers is worth less."""
    return f"{kind} {'closed' if topic.closed else 'open'}"


def _answer(topic: Topic, random: Random) -> str:
    return random.choices(topic.answers, topic.weights)[0]


def _holders(category: Category, products: Sequence[Product]) -> dict[str, tuple[Product, ...]]:
    """Value -> products with it, for values of at least two products: a rule about one product would be a fact."""
    holders = {
        value: tuple(product for product in products if product.values[column] == value)
        for column in category.columns
        for value in text.COLUMNS[column]
    }
    return {value: found for value, found in holders.items() if len(found) > 1}


def _conditions(category: Category, products: Sequence[Product], random: Random) -> Iterator[tuple[Condition, ...]]:
    """Draw searches without end. Text values are those of a product in the table, so most searches find something."""
    while True:
        wanted = random.choice(products)
        word = random.choice(category.columns)
        words = Condition(column=word, operator="=", value=wanted.values[word])
        number = random.choice(("price", category.measure))
        operator = random.choice("<>")
        bound = random.choice(text.PRICES if number == "price" else text.AMOUNTS)
        numbers = Condition(column=number, operator=operator, value=bound)
        yield random.choice(((words,), (numbers,), (words, numbers), (words, numbers)))


def _rows(products: Sequence[Product], conditions: Sequence[Condition]) -> tuple[str, ...]:
    return tuple(
        product.id
        for product in products
        if all(condition.holds(product.values[condition.column]) for condition in conditions)
    )
