"""A synthetic shop with the structure of ProductQA. Everything is drawn from a seed, so nothing is downloaded."""

import sqlite3
from collections.abc import Iterator, Sequence
from random import Random

from agile_ray.agent.environment import Found, Question, Submission
from agile_ray.agent.functions import Function
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.seeds import derive
from envs.shop_world import Category, Episode, categories, draw
from envs.sql import SqlTool

SPLITS = ("train", "validation", "test")
_TEXT_STREAMS = 128  # enough for every word of the shop to occur


class Shop:
    """Every split has infinitely many streams, each drawn from (seed, split, index) on a category of the split."""

    search_function = Function.SEARCH_PRODUCT

    def __init__(self, *, seed: int, tool_s: float = 2.0) -> None:
        self._seed = seed
        self._tool_s = tool_s  # deadline of one query
        self._categories = {split: categories(split) for split in SPLITS}

    def stream(self, *, split: str, index: int) -> "ShopStream":
        choices = self._split(split)
        random = Random(derive(self._seed, "shop", split, index))
        category = random.choice(choices)
        return ShopStream(
            id=f"shop/{category.name}/{split}/{self._seed}/{index}", episode=draw(category, random), tool_s=self._tool_s
        )

    def streams(self, split: str) -> None:
        """None: every split has infinitely many streams.

        Raises:
            ConfigError: no such split.
        """
        self._split(split)

    def _split(self, split: str) -> tuple[Category, ...]:
        if split not in self._categories:
            raise ConfigError(f"shop: the splits are {', '.join(SPLITS)}; found {split}")
        return self._categories[split]

    def texts(self) -> Sequence[str]:
        return tuple(text for index in range(_TEXT_STREAMS) for text in self._texts(index))

    def _texts(self, index: int) -> Iterator[str]:
        for question in self.stream(split="train", index=index).questions:
            yield question.shown
            yield f"history : {question.text} {question.answer}"
            yield f"knowledge : {question.knowledge or 'no information'}"
            yield f" {question.query or question.guess}"


class ShopStream:
    """The questions of one episode, their table and their judge."""

    def __init__(self, *, id: str, episode: Episode, tool_s: float) -> None:
        self.id = id
        self._tool_s = tool_s
        self.questions: tuple[Question, ...] = episode.questions
        self._episode = episode
        self._tool: SqlTool | None = None  # opened at the first search: most streams are never searched

    def search(self, query: str) -> Found:
        if self._tool is None:
            self._tool = _open(self._episode, deadline_s=self._tool_s)
        return self._tool.search(query)

    def judge(self, question: Question, submission: Submission) -> bool:
        """Compare text with the answer, ignoring case. A search is right if it submits some gold rows and no others."""
        if not question.query:
            return " ".join(submission.text.lower().split()) == question.answer
        rows = submission.text.split() if submission.rows is None else submission.rows
        return bool(rows) and set(rows) <= set(question.answer.split())


def build(env: Env, *, seed: int) -> Shop:
    """Build from the config.

    Raises:
        ConfigError: the config names files or categories; the shop draws its own.
    """
    given = [name for name in ("data", "categories") if getattr(env, name)]
    if given:
        raise ConfigError(f"env.{given[0]}: shop draws its own, found {getattr(env, given[0])}; leave it out")
    return Shop(seed=seed, tool_s=env.tool_s)


def _open(episode: Episode, *, deadline_s: float) -> SqlTool:
    connection = sqlite3.connect(":memory:")
    try:
        _fill(connection, episode)
        return SqlTool(connection, table=episode.category.name, deadline_s=deadline_s)
    finally:
        connection.close()


def _fill(connection: sqlite3.Connection, episode: Episode) -> None:
    """Write the products into a table that is named after the category."""
    category = episode.category
    words = [f"{column} TEXT" for column in category.columns]
    columns = ["product_id TEXT", "price INTEGER", f"{category.measure} INTEGER", *words]
    connection.execute(f"CREATE TABLE {category.name} ({', '.join(columns)})")
    connection.executemany(
        f"INSERT INTO {category.name} VALUES ({', '.join('?' * len(columns))})",
        [(product.id, *product.values.values()) for product in episode.products],
    )
    connection.commit()
