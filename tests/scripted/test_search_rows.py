"""Rows of a question and its query, and slips: queries that the tool refuses before the right one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from agile_ray.agent.environment import Found, Question, Stream, Submission
from agile_ray.agent.functions import Function
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent, Imitation, Memory
from agile_ray.errors import ConfigError
from agile_ray.scripted.demonstrations import Lessons, lessons
from agile_ray.scripted.search_rows import search_rows
from envs.recurring import Recurring
from envs.shop import Shop
from tests.fakes.streams import script_rules
from tests.fakes.worlds import question

SEARCHES, FACTS = 6, 4


class Searched:
    """Two streams with searches whose tool knows the gold query alone, one for each part of the training."""

    search_function = Function.SEARCH_PRODUCT
    taught_split = "imitation"

    def stream(self, *, split: str, index: int) -> Stream:
        return SearchedStream(split, index)

    def streams(self, split: str) -> int | None:
        return 1

    def texts(self) -> Sequence[str]:
        return ()


class SearchedStream:
    def __init__(self, split: str, index: int) -> None:
        self.id = f"searched/{split}/{index}"
        facts = [question(number, f"is {split} {number} ok") for number in range(FACTS)]
        searches = [
            replace(
                question(FACTS + number, f"find {split} {number}", answer=f"p{number}"),
                query=f"SELECT {split} {number}",
                wrong_query=f"SELEKT {split} {number}",
                query_shown=f"table of {number}",
            )
            for number in range(SEARCHES)
        ]
        self.questions: tuple[Question, ...] = (*facts, *searches)

    def search(self, query: str) -> Found:
        if query.startswith("SELECT"):
            return Found(text=f"rows : {query[-1]}", rows=(f"p{query[-1]}",), bad_query=False)
        return Found(text="error : no such word", rows=(), bad_query=True)

    def judge(self, question: Question, submission: Submission) -> bool:
        return question.answer in (submission.text, *(submission.rows or ()))


WORLD = Searched()


@pytest.fixture
def rules() -> Rules:
    return replace(script_rules(WORLD, agent=Agent(), memory=Memory()), tokenizer=WordTokenizer())


def teach(rules: Rules, **settings: float) -> Lessons:
    given = {"sessions": 200, "batch": 16, "warm_share": 0.0, "asked_share": 0.0} | settings
    return lessons(Imitation.model_validate(given), WORLD, rules, seed=3, progress=lambda _: None)


def test_a_row_trains_on_the_words_of_its_query_alone(rules: Rules) -> None:
    rows, missing = search_rows(SEARCHES, WORLD, rules, split="imitation", seed=0)
    decode = rules.tokenizer.decode
    assert missing == {}
    assert len({row.segment.position for row in rows}) == SEARCHES
    for row in rows:
        number = row.segment.position - FACTS
        read, written = (row.segment.token_ids[mask] for mask in (~row.segment.action_mask, row.segment.action_mask))
        assert decode(read.tolist()) == f"[GetQuestion]table of {number}\n[SearchProduct]"
        assert decode(written[:-1].tolist()) == f" SELECT imitation {number}"
        assert written[-1] == rules.tokenizer.eos_id
        assert (row.returns == 1).all()
        assert not row.wrote


def test_rows_that_are_missing_are_counted(rules: Rules) -> None:
    rows, missing = search_rows(SEARCHES + 3, WORLD, rules, split="imitation", seed=0)
    assert (len(rows), missing) == (SEARCHES, {"search rows that would need more questions": 3})
    short = replace(rules, agent=Agent(turn_tokens=3))
    rows, missing = search_rows(2, WORLD, short, split="imitation", seed=0)
    assert (len(rows), missing) == (0, {"search rows over a budget of tokens": 2})
    shop = Shop(seed=0)
    drawn, missing = search_rows(40, shop, replace(rules, agent=Agent(session_tokens=400)), split="train", seed=0)
    assert (len(drawn), missing) == (40, {})
    with pytest.raises(ConfigError, match=r"imitation.search_rows: .* found none in the train split"):
        search_rows(1, Recurring(seed=0), rules, split="train", seed=0)


def test_rows_are_mixed_into_the_batches_of_sessions(rules: Rules) -> None:
    found = teach(rules, search_rows=SEARCHES, sessions=100)
    without = teach(rules, sessions=100)
    rows = [one for batch in found.batches for one in batch if not one.segment.last]
    assert len(rows) == SEARCHES
    assert sum(map(len, found.batches)) == sum(map(len, without.batches)) + SEARCHES
    assert all(len(batch) == 16 for batch in found.batches[:-1])


def test_imitation_plays_the_split_that_ppo_does_not(rules: Rules) -> None:
    streams = {one.segment.stream for batch in teach(rules).batches for one in batch}
    assert {stream.split("/")[1] for stream in streams} == {"imitation"}


def test_a_slip_is_read_but_not_trained_on_and_the_right_query_is(rules: Rules) -> None:
    slipped, searched = 0, 0
    for one in (one for batch in teach(rules, wrong_queries=0.3).batches for one in batch):
        tokens, mask = one.segment.token_ids, one.segment.action_mask
        text, learned = (rules.tokenizer.decode(ids.tolist()) for ids in (tokens, tokens[mask]))
        assert "SELEKT" not in learned
        searched += "SELECT" in learned
        if "SELEKT" in text:
            slipped += 1
            assert text.index("SELEKT") < text.index("error : no such word") < text.index("SELECT")
            assert learned.count("[SearchProduct]") == 1
            assert "[SubmitAnswer]" in learned
            assert one.returns[0] == 1.0
        assert np.array_equal(one.segment.turn_ids >= 0, mask)
    assert 0.15 < slipped / searched < 0.45
    assert not any(
        "SELEKT" in rules.tokenizer.decode(one.segment.token_ids.tolist()) for b in teach(rules).batches for one in b
    )
