"""The shop without luck: the best rules on a stream worked out by hand, and what played sessions are worth."""

from math import sqrt
from statistics import mean, stdev

import pytest

from agile_ray.agent.environment import Submission
from agile_ray.errors import ConfigError
from agile_ray.evaluation.score import reward
from agile_ray.record.folder import RunFolder
from agile_ray.types import Receipt
from envs.shop import Shop
from launch.report.compared_key import ComparedKey, parse
from launch.run import shipped_configs
from launch.studies.shop_optimum import RULES, TEST_STREAMS, Future, play, streams
from launch.studies.shop_runs import CREDIT_MODE, ShopKnowledge, finished
from tests.fakes.worlds import SESSION, changed

FACT = next(question for question in Shop(seed=0).stream(split="train", index=0).questions if question.kind == "fact")
STREAM = [changed(FACT, item=item, guess_probability=0.5) for item in "aaaax"]  # x begins a new group of NEAR positions
NEVER = 1 - 5 * 0.5 / 5


@pytest.mark.parametrize(
    ("name", "price", "total", "asked"),
    [
        ("none", 0.45, 1 - 2 * 0.45 / 5, 2 / 5),  # asks for both items once; repeats are free
        ("none", 0.55, NEVER, 0),
        ("heuristic", 0.55, 1 - (0.55 + 0.5) / 5, 1 / 5),  # 0.5 + 0.1 > 0.55, only for the item that recurs
        ("heuristic", 0.65, NEVER, 0),
        ("fitted, linked", 1.9, 1 - (1.9 + 0.5) / 5, 1 / 5),  # 0.5 * (1 + 3) > 1.9
        ("fitted, linked", 2.1, NEVER, 0),
        ("oracle", 1.9, 1 - (1.9 + 0.5) / 5, 1 / 5),
        ("oracle", 2.1, NEVER, 0),
    ],
)
def test_each_rule_asks_where_its_reward_exceeds_the_price(name, price, total, asked):
    found = play([STREAM], Future([STREAM]), RULES[name], 1000 * price)
    assert (found.total, found.asked_share) == pytest.approx((total, asked))


def test_expectations_are_means_over_the_first_questions_on_items():
    future = Future([STREAM, [changed(question, item=str(position)) for position, question in enumerate(STREAM)]])
    assert future.sight(STREAM[0], 0, 3).expected == pytest.approx((3 + 0 + 0 + 0 + 0) / 5)
    assert future.sight(STREAM[0], 0, 3).probability == pytest.approx(1 / 5)


SHOP = ShopKnowledge({0: Future([one.questions for one in streams("train", 50, seed=0)])})
PRICE = 300
ADVICE = Receipt(key="k", price=PRICE, source="gold", latency_s=0, advice="yes", answer="yes")


def sessions(*, kinds=("fact", "reasoning")):
    """One for each test question of a kind, where the best guess was submitted."""
    return [
        changed(
            SESSION,
            stream=stream.id,
            position=position,
            known=False,
            answer=question.guess,
            correct=stream.judge(question, Submission(text=question.guess, rows=None)),
        )
        for stream in streams("test", TEST_STREAMS, seed=0)
        for position, question in enumerate(stream.questions)
        if question.kind in kinds
    ]


def test_counting_guesses_at_their_probability_keeps_the_mean_and_lowers_the_spread():
    guesses = sessions()
    luck = [reward(guess) - SHOP.worth(guess) for guess in guesses]
    assert abs(mean(luck)) < 2 * sqrt(TEST_STREAMS) * stdev(stream_sums(guesses, luck)) / len(guesses)
    assert stdev(map(SHOP.worth, guesses)) < 0.8 * stdev(map(reward, guesses))


def stream_sums(guesses, values):
    """Questions on one item share their luck, so streams are the units."""
    return [
        sum(value for guess, value in zip(guesses, values, strict=True) if guess.stream == name)
        for name in {guess.stream for guess in guesses}
    ]


@pytest.mark.parametrize(
    "changes", [{"known": True}, {"receipts": (ADVICE,)}, {"answer": "none such"}, {"answer": None}]
)
def test_a_session_that_does_not_submit_the_best_guess_counts_as_judged(changes):
    other = [changed(guess, **changes) for guess in sessions()]
    assert list(map(SHOP.worth, other)) == list(map(reward, other))


def test_a_search_counts_as_judged():
    found = sessions(kinds=("search",))
    assert list(map(SHOP.worth, found)) == list(map(reward, found))


def test_missed_counts_decisions_against_the_rule_where_memory_lacks_the_answer():
    guesses = sessions()
    asks = [changed(guess, receipts=(ADVICE,)) for guess in guesses]
    known = [changed(guess, known=True) for guess in guesses]
    assert SHOP.missed([*guesses, *known], RULES["none"], 300) == {True: 1, False: 0}
    assert SHOP.missed(asks, RULES["none"], 300) == {True: 0, False: 1}
    assert SHOP.missed(asks, RULES["none"], 1000) == {True: None, False: 1}


def keep_finished(folder, *overrides):
    """The files from which a study reads that a run is finished and how it was configured."""
    folder.mkdir()
    RunFolder(folder).config.write_text(shipped_configs.read("shop", overrides).yaml())
    RunFolder(folder).report.touch()


def test_runs_are_read_in_the_order_of_the_table(tmp_path):
    keep_finished(tmp_path / "a", "credit.mode=linked", "seed=0", "run.name=a")
    keep_finished(tmp_path / "b", "credit.mode=heuristic", "seed=1", "run.name=b")
    keep_finished(tmp_path / "c", "credit.mode=heuristic", "seed=0", "run.name=c")
    keep_finished(tmp_path / "d", "credit.mode=linked", "env.advice_cost=0.9", "run.name=d")
    assert [path.name for path, _ in finished(tmp_path, CREDIT_MODE)] == ["d", "c", "b", "a"]


@pytest.mark.parametrize(("key", "value"), [("imitation.asking", "judgement"), ("loop.iterations", "3")])
def test_runs_that_differ_in_more_than_price_seed_and_the_compared_key_are_refused(key, value, tmp_path):
    keep_finished(tmp_path / "a", "seed=0")
    keep_finished(tmp_path / "b", "seed=1", f"{key}={value}")
    with pytest.raises(ConfigError, match=f"differ by .* alone; beside .*{key} was"):
        finished(tmp_path, CREDIT_MODE)
    assert len(finished(tmp_path, ComparedKey(key=key, to=value))) == 2


def test_an_unknown_compared_key_is_refused(tmp_path):
    keep_finished(tmp_path / "a")
    with pytest.raises(ConfigError, match="found imitation.askin"):
        finished(tmp_path, parse("imitation.askin=judgement"))


def test_a_run_that_was_trained_twice_is_not_counted_twice(tmp_path):
    for name in "ab":
        keep_finished(tmp_path / name, f"run.name={name}")
    with pytest.raises(ConfigError, match="differ by their names alone"):
        finished(tmp_path, CREDIT_MODE)


def test_a_compared_key_is_written_with_its_baseline():
    assert parse("credit.mode=none") == ComparedKey(key="credit.mode", to="none")
    with pytest.raises(ConfigError, match="written KEY=VALUE"):
        parse("credit.mode")
