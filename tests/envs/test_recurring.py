"""The recurring environment: determinism, recurrence, retrieval, and the value of asking."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from agile_ray.agent.environment import Submission
from agile_ray.agent.executor import NO_INFORMATION, SAYINGS
from agile_ray.agent.later import later_similar
from agile_ray.agent.memory import HashedEmbedder
from agile_ray.config import Env
from agile_ray.config_file import load
from agile_ray.credit.fitted import check_windows
from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import Play
from agile_ray.scripted.optimum import optimum
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.scripted.teacher import collector
from agile_ray.types import Ending, Session
from envs import build
from envs.recurring import ITEMS, LENGTH, LONG, LONG_ITEMS, POOL, RECUR, SPLITS, Recurring
from launch.models.tiny import Shape, train_tokenizer
from launch.run import shipped_configs
from rollout.tokenizer import HFTokenizer
from tests.fakes.streams import play_streams, script_rules
from tests.fakes.worlds import changed

ROOT = Path(__file__).resolve().parents[2]
THREE_PRICES = load(ROOT / "configs" / "toy" / "three_prices.yaml")
WORLD = Recurring(seed=0)
STREAMS = range(100)
EPISODES = [WORLD.stream(split="train", index=index).questions for index in STREAMS]


def play(name: str, *, price: int = 700) -> list[Session]:
    rules = script_rules(WORLD, agent=THREE_PRICES.agent, memory=THREE_PRICES.memory)
    policy = reference(name, WORLD, Habits(asked_share=0.5))
    return play_streams(policy, WORLD, split="train", indices=STREAMS, rules=rules, price=price)


def mean(numbers) -> float:
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def sights() -> list[int]:
    """How often each session's item was asked before, in the order of play."""
    counts = [Counter() for _ in EPISODES]
    found = []
    for count, episode in zip(counts, EPISODES, strict=True):
        for question in episode:
            found.append(count[question.item])
            count[question.item] += 1
    return found


def test_a_stream_is_determined_by_seed_split_and_index():
    one, two = (Recurring(seed=3).stream(split="train", index=7) for _ in range(2))
    assert (one.id, one.questions) == (two.id, two.questions)
    others = [
        Recurring(seed=4).stream(split="train", index=7),
        Recurring(seed=3).stream(split="train", index=8),
        *(Recurring(seed=3).stream(split=split, index=7) for split in SPLITS if split != "train"),
    ]
    assert len({stream.id for stream in (one, *others)}) == 5
    assert len({stream.questions for stream in (one, *others)}) == 5


def test_every_item_of_an_episode_is_asked_three_times_with_one_answer():
    for episode in EPISODES:
        assert [question.id for question in episode] == [f"q{position}" for position in range(LENGTH)]
        assert sorted(Counter(question.item for question in episode).values()) == [RECUR] * ITEMS
        assert len({(question.item, question.answer) for question in episode}) == ITEMS


def test_the_order_is_random_including_the_first_and_the_last_question():
    assert {episode[0].item == episode[1].item for episode in EPISODES} == {True, False}
    assert mean(episode[0].item == episode[-1].item for episode in EPISODES) < 0.3


@pytest.mark.parametrize("split", SPLITS)
def test_every_word_occurs_in_every_split_and_answers_are_balanced(split: str):
    streams = [WORLD.stream(split=split, index=index).questions for index in range(400)]
    hidden = [answer for episode in streams for answer in {q.item: q.answer for q in episode}.values()]
    assert {question.item for episode in streams for question in episode} == set(POOL)
    assert mean(answer == "yes" for answer in hidden) == pytest.approx(0.5, abs=4 * 0.5 / len(hidden) ** 0.5)


def test_questions_on_two_items_are_not_similar():
    texts = {question.item: question.text for episode in EPISODES for question in episode}
    assert len(texts) == len(set(POOL)) == len(POOL)
    vectors = dict(zip(texts, HashedEmbedder().embed(list(texts.values())), strict=True))
    nearest = max(float(vectors[one] @ vectors[two]) for one, two in combinations(vectors, 2))
    assert nearest < min(THREE_PRICES.memory.threshold, THREE_PRICES.credit.threshold)


def test_always_asking_earns_one_minus_the_price():
    sessions = play("always_ask")
    assert {session.own_reward for session in sessions} == {0.3}


def test_never_asking_is_right_half_of_the_time():
    sessions = play("never_ask")
    hidden = ITEMS * len(EPISODES)  # the guesses on one item are all right or all wrong
    assert mean(session.own_reward for session in sessions) == pytest.approx(0.5, abs=4 * 0.5 / hidden**0.5)


@pytest.mark.parametrize("price", [400, *(pytest.param(price, marks=pytest.mark.long) for price in (550, 700, 1000))])
def test_the_optimum_asks_only_the_first_question_on_an_item(price: int):
    sessions = play("oracle", price=price)
    assert [session.asks for session in sessions] == [int(sight == 0) for sight in sights()]
    assert all(session.correct and session.ending is Ending.DONE and not session.remarks for session in sessions)
    expected = optimum(EPISODES, price=price)
    assert mean(session.own_reward for session in sessions) == pytest.approx(expected.total)
    assert (expected.asked_share, expected.total) == pytest.approx((1 / 3, 1 - price / 3000))


@pytest.mark.parametrize(("price", "asked"), [(1499, 1 / 3), (1500, 0.0)])
def test_asking_pays_below_a_price_of_one_and_a_half(price: int, asked: float):
    assert optimum(EPISODES, price=price).asked_share == pytest.approx(asked)


@pytest.mark.parametrize(
    "name", ["teacher", *(pytest.param(name, marks=pytest.mark.long) for name in ("oracle", "always_ask", "never_ask"))]
)
def test_memory_returns_the_advice_on_the_item_and_nothing_else(name: str):
    sessions = iter(play(name))
    for episode in EPISODES:
        writers: dict[str, int] = {}  # the session that first bought advice on each item
        for question, session in zip(episode, sessions, strict=False):
            bought = [writers[question.item]] if question.item in writers else []
            assert [use.writer for use in session.reads] == bought
            assert [use.similarity for use in session.reads] == pytest.approx([1.0] * len(bought), abs=1e-5)
            assert (session.hindsight.known, session.hindsight.stored_similar) == (bool(bought), len(bought))
            imagined = [one.writers for one in session.hindsight.counterfactuals]  # the session without its one read
            assert imagined == [(writer,) for writer in bought]
            if session.asks:
                writers.setdefault(question.item, session.position)


def test_later_similar_counts_the_remaining_questions_on_the_item():
    threshold = THREE_PRICES.memory.threshold
    counts = [later_similar(questions, embedder=HashedEmbedder(), threshold=threshold) for questions in EPISODES]
    assert [count for episode in counts for count in episode] == [RECUR - 1 - sight for sight in sights()]


def test_the_texts_include_the_knowledge_line_of_an_item_without_knowledge():
    assert f"knowledge : {NO_INFORMATION}" in WORLD.texts()


def test_a_query_returns_an_error_text():
    found = WORLD.stream(split="test", index=0).search("SELECT 1")
    assert (found.bad_query, found.rows) == (True, ())
    assert found.text.startswith("error : ")


def test_the_judge_ignores_only_case_and_spaces():
    stream = WORLD.stream(split="train", index=0)
    question = stream.questions[0]
    other = {"yes": "no", "no": "yes"}[question.answer]
    assert stream.judge(question, Submission(text=f" {question.answer.upper()} ", rows=None))
    assert not stream.judge(question, Submission(text=other, rows=None))
    assert not stream.judge(question, Submission(text="", rows=None))


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="splits are train, validation, test; found dev"):
        WORLD.stream(split="dev", index=0)


@pytest.mark.parametrize("given", [{"data": "somewhere"}, {"categories": {"test": ["lamps"]}}])
def test_files_and_categories_are_refused(given):
    with pytest.raises(ConfigError, match=f"env.{next(iter(given))}: recurring draws its own"):
        build(Env(name="recurring", **given), seed=0)


def test_the_config_collects_whole_episodes_and_is_not_listed_as_a_top_level_name():
    assert THREE_PRICES.env.name == "recurring"
    assert THREE_PRICES.loop.sessions_per_lane == LENGTH
    assert "three_prices" not in shipped_configs.shipped_in()


LONG_TOY = load(ROOT / "configs" / "toy" / "long.yaml", find=shipped_configs.find)


def test_the_long_streams_ask_about_667_items_of_two_words_three_times_each():
    one, other = (build(LONG_TOY.env, seed=0).stream(split="train", index=index) for index in range(2))
    assert one.id == "recurring_long/train/0/0"
    assert one.id != other.id
    for stream in (one, other):
        assert sorted(Counter(question.item for question in stream.questions).values()) == [RECUR] * LONG_ITEMS
        assert len({(question.item, question.answer) for question in stream.questions}) == LONG_ITEMS
    assert len({frozenset(name.split()) for name in LONG.pool}) == len(LONG.pool)  # hashing ignores the order of words
    assert {word for name in LONG.pool for word in name.split()} == set(POOL)
    expected = optimum([one.questions, other.questions], price=LONG_TOY.env.price)
    assert (expected.asked_share, expected.total) == pytest.approx((1 / 3, 1 - 0.7 / 3))


def test_memory_finds_the_right_entry_among_hundreds_of_long_streams():
    world = build(LONG_TOY.env, seed=0)
    rules = script_rules(world, agent=LONG_TOY.agent, memory=LONG_TOY.memory, price=LONG_TOY.env.price)
    plays = [Play(index=0, sessions=1000)]
    policy = collector(world)
    sessions = play_sessions(policy, world, split="train", plays=plays, rules=rules)
    questions, seen = world.stream(split="train", index=0).questions, set[str]()
    for question, session in zip(questions, sessions, strict=False):
        assert [questions[use.writer].item for use in session.reads] == [question.item] * (question.item in seen)
        assert session.hindsight.same_item == tuple(p for p, one in enumerate(questions) if one.item == question.item)
        seen.add(question.item)
    assert all(session.correct and session.ending is Ending.DONE and not session.remarks for session in sessions)
    assert len(seen) > 500


def test_the_long_config_collects_a_small_part_of_a_stream_and_evaluates_a_whole_one():
    length = LONG_ITEMS * RECUR
    assert LONG_TOY.loop.sessions_per_lane < length / 50
    assert LONG_TOY.evaluate.sessions == length
    with pytest.raises(ConfigError, match="credit.mode: fitted learns from the ends of streams"):
        check_windows(
            load(ROOT / "configs/toy/long.yaml", ["credit.mode=fitted"], find=shipped_configs.find),
            stream_length=length,
        )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """As `agile-ray model tiny` trains it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    shape = Shape(hidden=32, layers=1, vocabulary=2048, context=512)
    train_tokenizer([*WORLD.texts(), *SAYINGS], shape=shape).save_pretrained(folder)
    return HFTokenizer(folder)


def test_every_word_to_copy_is_one_token_with_the_space_before_it(tokenizer):
    for word in (*POOL, "yes", "no"):
        assert len(tokenizer.encode(f" {word}")) == 1, word
        assert tokenizer.encode(f"history : is {word} ok ? no")[3:4] == tokenizer.encode(f"is {word} ok ?")[1:2]


@pytest.mark.parametrize("name", ["teacher", "always_ask"])
def test_sessions_are_short(tokenizer, name: str):
    rules = script_rules(WORLD, agent=THREE_PRICES.agent, memory=THREE_PRICES.memory)
    policy = reference(name, WORLD, Habits(asked_share=0.5))
    sessions = play_streams(
        policy, WORLD, split="train", indices=range(10), rules=changed(rules, tokenizer=tokenizer), price=700
    )
    assert all(session.ending is Ending.DONE and not session.remarks for session in sessions)
    lengths = [len(session.turns[-1].prompt_ids) + len(session.turns[-1].completion_ids) for session in sessions]
    assert max(lengths) <= THREE_PRICES.agent.session_tokens / 2
