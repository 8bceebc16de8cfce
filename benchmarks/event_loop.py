"""Measures what the lanes of one actor lose to each other: sessions per second on an engine that answers at once.

Many lanes play scripted sessions on one event loop: retrieval, an SQL query to a tool that answers late, embeddings,
and in every fourth session an ask and a write to memory. Each of the parts that can be slow is then timed alone, in the
same process and on the same sessions:

    latency     every lane only waits for its tool
    embeddings  every text is embedded, in large batches
    sql         every query runs, one after the other

Lanes that never wait for each other are as fast as the slowest part, if there are enough cores: ratio 1.00.
"""

import argparse
import asyncio
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agile_ray.agent.environment import Found, Question, Submission
from agile_ray.agent.expert import GoldExpert
from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.memory import HashedEmbedder
from agile_ray.agent.policy import Completion, SessionView
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent, Memory
from agile_ray.prices import Prices
from agile_ray.types import Session
from envs.sql import SqlTool
from launch.border import border
from rollout.embedder import BATCH, BatchedEmbedder, Encoder

EXAMPLE = """example:
  python benchmarks/event_loop.py --lanes 256 --sessions 2

prints a line for each repeat and the median ratio. Other work on the machine changes single ratios by half.
"""
PRODUCTS, COLUMNS = 3000, 24  # of the table, as in a category of ProductQA
PER_PRODUCT = 4  # questions in a stream
ASKS_EVERY = 4  # sessions
WORDS = (
    "pan", "oven", "steel", "handle", "lid", "induction", "dishwasher", "coating", "weight", "inch", "quart", "glass",
    "copper", "stove", "even", "heat", "clean", "scratch", "rivet", "long", "safe", "brand", "price", "warranty", "fit",
    "surface", "burn", "food", "eggs", "dinner", "large", "small", "replace", "made", "where", "thick", "bottom",
    "rust", "stick", "spoon", "metal", "use", "can", "does", "will", "how", "much", "is", "what", "the", "for", "with",
)  # fmt: skip


class Hashed:
    """The hashed embedder as an encoder."""

    dimension = HashedEmbedder.dimension
    encode = HashedEmbedder().embed


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the lanes play."""

    lanes: int
    sessions: int  # of each lane
    latency_s: float  # of the tool
    looks_ahead: bool  # count the questions that follow, as training with credit does


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Sessions per second of the lanes together, and of every part alone."""

    played: float
    latency: float
    embeddings: float
    sql: float

    @property
    def ratio(self) -> float:
        """Speed of the lanes, in units of the slowest part's."""
        return self.played / min(self.latency, self.embeddings, self.sql)

    def __str__(self) -> str:
        alone = f"latency {self.latency:.0f}, embeddings {self.embeddings:.0f}, sql {self.sql:.0f}"
        return f"{self.played:.0f} sessions/s; alone: {alone}; ratio {self.ratio:.2f}"


class SlowStream:
    """Questions on a table whose tool answers late. All lanes share the table."""

    def __init__(self, number: int, tool: SqlTool, load: Load) -> None:
        self.id = f"event_loop/{number}"
        self.questions = tuple(_question(number, position) for position in range(load.sessions))
        self._tool = tool
        self._latency_s = load.latency_s

    def search(self, query: str) -> Found:
        """Run the query, and wait as if the table were on another machine."""
        time.sleep(self._latency_s)
        return self._tool.search(query)

    def judge(self, question: Question, submission: Submission) -> bool:
        return submission.text == question.answer


class Script:
    """Stands for an engine: writes each turn as soon as the event loop has run the others."""

    async def write(self, view: SessionView) -> Completion:
        await asyncio.sleep(0)
        ids = np.array(list(self._ids(view)), dtype=np.int32)
        return Completion(ids=ids, logprobs=np.zeros(len(ids), np.float32), versions=np.zeros(len(ids), np.int32))

    def asks(self, view: SessionView) -> bool:
        """Whether the session asks."""
        return view.position % ASKS_EVERY == 0

    def _ids(self, view: SessionView) -> Sequence[int]:
        tokenizer = view.tokenizer
        ends = [tokenizer.function_id(one) for one in (Function.SUBMIT_ANSWER, Function.CLEAR_CONTEXT)]
        match view.last:
            case None:
                return [tokenizer.function_id(Function.GET_QUESTION)]
            case Function.GET_QUESTION:
                return [tokenizer.function_id(Function.RETRIEVE_MEMORY)]
            case Function.RETRIEVE_MEMORY:
                query = tokenizer.encode(view.question.query)
                return [tokenizer.function_id(Function.SEARCH_PRODUCT), *query, tokenizer.eos_id]
            case Function.SEARCH_PRODUCT if self.asks(view):
                return [tokenizer.function_id(Function.SEEK_ADVICE)]
            case Function.SEEK_ADVICE:
                learned = tokenizer.encode(f" {view.question.knowledge}")
                writes = tokenizer.function_id(Function.UPDATE_MEMORY)
                return [tokenizer.function_id(Function.REFLECTION), *learned, writes, *ends]
            case _:
                return ends


def _question(number: int, position: int) -> Question:
    draw = random.Random(f"{number} {position}")
    text = f"{' '.join(draw.choices(WORDS, k=draw.randint(6, 28)))} ?"
    product = f"P{draw.randrange(PRODUCTS) // PER_PRODUCT}"
    return Question(
        id=f"q{position}",
        product=product,
        kind="search",
        topic="search",
        text=text,
        shown=f"product {product} question : {text}",
        item=f"{number} {position}",
        answer="yes",
        advice="yes",
        knowledge=" ".join(draw.choices(WORDS, k=12)),
        query=f"SELECT product_id FROM products WHERE c{draw.randrange(COLUMNS)} = '{draw.choice(WORDS)}' "
        f"AND price < {draw.randrange(100)} ORDER BY price",
        guess="yes",
        guess_probability=0.5,
    )


def fill(path: Path) -> None:
    """Write the table of products."""
    draw = random.Random(0)
    columns = [f"c{index}" for index in range(COLUMNS)]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE products (product_id TEXT, price REAL, {' TEXT, '.join(columns)} TEXT)")
        rows = [(f"P{index}", draw.uniform(1, 100), *draw.choices(WORDS, k=COLUMNS)) for index in range(PRODUCTS)]
        connection.executemany(f"INSERT INTO products VALUES ({', '.join('?' * (COLUMNS + 2))})", rows)
        connection.commit()


def play(lanes: Sequence[Lane], sessions: int) -> list[Session]:
    """Play this many sessions on every lane, all lanes at once."""

    async def together() -> list[list[Session]]:
        return await asyncio.gather(*map(one_after_another, lanes))

    async def one_after_another(lane: Lane) -> list[Session]:
        return [await lane.play(Script()) for _ in range(sessions)]

    return [session for played in asyncio.run(together()) for session in played]


def seconds(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(load: Load, encoder: Encoder, database: Path, *, first: int) -> tuple[Speeds, list[Session]]:
    """Play all lanes together, then every part alone on what they played.

    Args:
        load: what is played.
        encoder: without a cache.
        database: that `fill` wrote.
        first: number of the first stream; each stream has its own texts.
    """
    tool = SqlTool(database, table="products")
    rules = Rules(
        search_function=Function.SEARCH_PRODUCT,
        tokenizer=WordTokenizer(),
        embedder=BatchedEmbedder(encoder),
        expert=GoldExpert(),
        agent=Agent(turn_tokens=96, session_tokens=640),
        memory=Memory(),
        tool_s=2.0,
        prices=Prices(amounts=(300,)),
    )
    streams = [SlowStream(first + number, tool, load) for number in range(load.lanes)]
    lanes = [Lane(stream, rules, looks_ahead=load.looks_ahead, imagines=True) for stream in streams]
    sessions: list[Session] = []
    played_s = seconds(lambda: sessions.extend(play(lanes, load.sessions)))

    questions = [question for stream in streams for question in stream.questions]
    written = [question.knowledge for stream in streams for question in stream.questions[::ASKS_EVERY]]
    texts = list(dict.fromkeys([*(question.text for question in questions), *written]))
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    embedded_s = seconds(lambda: [encoder.encode(batch) for batch in batches])
    searched_s = seconds(lambda: [tool.search(question.query) for question in questions])
    tool.close()
    speeds = Speeds(
        played=len(sessions) / played_s,
        latency=len(sessions) / (load.sessions * load.latency_s),
        embeddings=len(sessions) / embedded_s,
        sql=len(sessions) / searched_s,
    )
    return speeds, sessions


def build_encoder(name: str) -> Encoder:
    """Build the encoder that the command line names."""
    if name == "hashed":
        return Hashed()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # Ray sets it for an actor; read when torch is imported
    from rollout.minilm import MiniLM

    return MiniLM()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--sessions", type=int, default=2, help="of each lane; default: %(default)s")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds, of the tool; default: %(default)s")
    parser.add_argument("--embedder", choices=["minilm", "hashed"], default="minilm", help="`hashed` is for tests")
    parser.add_argument("--looks-ahead", action="store_true", help="count the questions that follow, for credit")
    parser.add_argument("--repeats", type=int, default=5, help="times that all is measured; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    """Measure in this process."""
    given = arguments()
    with border(), tempfile.TemporaryDirectory() as folder:
        load = Load(lanes=given.lanes, sessions=given.sessions, latency_s=given.latency, looks_ahead=given.looks_ahead)
        encoder = build_encoder(given.embedder)
        database = Path(folder) / "products.db"
        fill(database)
        encoder.encode(["warm up"])
        ratios: list[float] = []
        for repeat in range(given.repeats):
            speeds, sessions = measure(load, encoder, database, first=repeat * load.lanes)
            ratios.append(speeds.ratio)
            print(f"{len(sessions)} sessions on {load.lanes} lanes: {speeds}", flush=True)
        print(f"median ratio {statistics.median(ratios):.2f} of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
