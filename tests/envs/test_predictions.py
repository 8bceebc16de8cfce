"""Exported predictions: the authors' rules, written anew, judge every row as the session was judged."""

import re
import string
from pathlib import Path

import pytest

import envs
from agile_ray.agent.environment import Environment
from agile_ray.config import Env
from agile_ray.config import Memory as MemoryConfig
from agile_ray.errors import ConfigError
from agile_ray.types import Origin, Session
from envs.predictions import PredictionRow, exported
from envs.productqa_files import Category
from tests.envs import test_productqa
from tests.envs.test_hotpotqa import folder
from tests.envs.test_productqa import AGENT, FOLDER, TEST_CATEGORIES, of_each, tiny
from tests.fakes.streams import play_streams, script_rules
from tests.fakes.worlds import END, Says

__all__ = ("folder", "tiny")  # fixtures


def words(text: str) -> str:
    return " ".join(text.lower().split())


def eval_py(category: Category, row: PredictionRow, number: int) -> bool:
    """AGILE's data/eval.py on one line."""
    gold, predicted = category.questions[number], row["short_answer"]
    if gold.kind == "search":
        asins = [hit.asin for hit in gold.hits]
        if not isinstance(predicted, list):
            return False
        return bool(predicted) == bool(asins) and all(one in asins for one in predicted)
    assert isinstance(gold.short_answer, str)
    return isinstance(predicted, str) and words(predicted) == words(gold.short_answer)


def play(environment: Environment, *turns: str, index: int = 0) -> list[Session]:
    """Play the test stream, each session with the same turns."""

    class Repeats(Says):
        async def write(self, view):
            if view.last is None:
                self.turns = ["[GetQuestion]", "[RetrieveMemory]", *turns]
            return await super().write(view)

    rules = script_rules(environment, agent=AGENT, memory=MemoryConfig())
    return play_streams(Repeats(), environment, split="test", indices=[index], rules=rules, price=300)


TURNS = {
    "words": ("[PredictAnswer] YES [SubmitAnswer] [ClearContext]",),
    "entities": ("[PredictAnswer] cast &amp; iron [SubmitAnswer] [ClearContext]",),
    "names": ("[PredictAnswer] Deep pan or B01 [SubmitAnswer] [ClearContext]",),
    "wrong name": ("[PredictAnswer] wok [SubmitAnswer] [ClearContext]",),
    "rows": (f"[SearchProduct] SELECT product_id FROM products {END}", "[SubmitAnswer] [ClearContext]"),
    "a row": (f"[SearchProduct] SELECT product_id FROM products LIMIT 1 {END}", "[SubmitAnswer] [ClearContext]"),
    "no rows": (f"[SearchProduct] SELECT product_id FROM products LIMIT 0 {END}", "[SubmitAnswer] [ClearContext]"),
    "advice": ("[SeekAdvice]", "[SubmitAnswer] [ClearContext]"),
    "after advice": ("[SeekAdvice]", "[PredictAnswer] none [SubmitAnswer] [ClearContext]"),
    "nothing": ("[ClearContext]",),
}


@pytest.mark.parametrize("stretch", [None, 4])
@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS.keys())
def test_productqa_scores_by_eval_py_as_it_was_judged(tiny: Path, turns: tuple[str, ...], stretch: int | None) -> None:
    environment = envs.build(Env(name="productqa", data=tiny, stream_sessions=stretch), seed=0)
    sessions = [
        one for index in range(environment.streams("test") or 0) for one in play(environment, *turns, index=index)
    ]
    category = Category(folder=tiny / "test" / "pans")
    [(name, rows)] = exported(environment, sessions).items()
    assert (name, len(rows)) == ("pans", len(category.questions))
    for number, (row, session) in enumerate(zip(rows, sessions, strict=True)):
        assert (row["id"], row["question"]) == (category.questions[number].id, category.questions[number].question)
        assert eval_py(category, row, number) == row["correct"] == session.correct
        assert row["asked"] == bool(session.asks)


def test_the_turns_above_are_right_and_wrong_in_every_way(tiny: Path) -> None:
    environment = envs.build(Env(name="productqa", data=tiny), seed=0)
    seen = {(one.origin, one.kind, one.correct) for turns in TURNS.values() for one in play(environment, *turns)}
    assert seen >= {
        (Origin.WORDS, "fact", True), (Origin.WORDS, "fact", False), (Origin.WORDS, "search", True),
        (Origin.WORDS, "search", False), (Origin.ROWS, "fact", False), (Origin.ROWS, "search", True),
        (Origin.ROWS, "search", False), (Origin.ADVICE, "search", True), (None, "search", False),
    }  # fmt: skip


def test_lines_stay_aligned_where_a_question_was_not_played(tiny: Path) -> None:
    environment = envs.build(Env(name="productqa", data=tiny, stream_sessions=4), seed=0)
    rows = exported(environment, play(environment, *TURNS["advice"])[2:])["pans"]
    assert [row["id"] for row in rows] == [row["id"] for row in test_productqa.PANS]
    assert [row["short_answer"] is None for row in rows] == [True, True, False, False, False, False]


@pytest.mark.parametrize("said", ["City 60", "the city: 60", "City", ""])
def test_hotpotqa_scores_by_its_own_and_by_agiles_rule_as_it_was_judged(folder: Path, said: str) -> None:
    environment = envs.build(Env(name="hotpotqa", data=folder), seed=0)
    sessions = play(environment, f"[PredictAnswer] {said} [SubmitAnswer] [ClearContext]")
    rows = exported(environment, sessions)["test"]
    for row, session in zip(rows, sessions, strict=True):
        gold, predicted = f"City {session.question_id[1:]}", str(row["short_answer"])
        assert (official(predicted) == official(gold)) == session.correct
        assert (predicted.strip().lower() == gold.strip().lower()) == session.correct == row["correct"]
    assert [session.correct for session in sessions][0] == (said not in ("City", ""))


def official(answer: str) -> str:
    """Of hotpot_evaluate_v1.py."""
    answer = "".join(letter for letter in answer.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", answer).split())


def test_a_drawn_environment_can_not_be_exported() -> None:
    with pytest.raises(ConfigError, match="only productqa, medmcqa and hotpotqa"):
        exported(envs.build(Env(name="shop", stream_sessions=4), seed=0), ())


@pytest.mark.data
@of_each(TEST_CATEGORIES)
def test_real_categories_score_by_eval_py_as_they_were_judged(category: Path) -> None:
    splits = {"train": ("mice",), "test": (category.name,)}
    environment = envs.build(Env(name="productqa", data=FOLDER, categories=splits, stream_sessions=400), seed=0)
    gold = Category(folder=category)
    for turns in (TURNS["words"], TURNS["a row"], TURNS["advice"]):
        sessions = play(environment, *turns)
        rows = exported(environment, sessions)[category.name]
        judged = [eval_py(gold, row, number) for number, row in enumerate(rows)]
        assert judged == [session.correct for session in sessions]
        assert any(judged)
