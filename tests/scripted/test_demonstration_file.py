"""Files of demonstrations: what is written is read back as the same lessons, and what is wrong is named by its line."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agile_ray.agent.environment import Environment
from agile_ray.agent.functions import Function
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import Tokenizer, WordTokenizer
from agile_ray.config import Agent, Imitation, Memory
from agile_ray.errors import ConfigError
from agile_ray.scripted.demonstration_file import Row
from agile_ray.scripted.demonstration_writer import write_teacher
from agile_ray.scripted.demonstrations import NAMED, Lessons, lessons
from agile_ray.types import Demonstration
from envs.recurring import Recurring
from envs.shop import Shop
from rollout.tokenizer import HFTokenizer
from tests.fakes.model_folder import write_model_folder
from tests.fakes.streams import script_rules
from tests.scripted.test_search_rows import Searched

SHOP = Shop(seed=0)
DOCS = Path(__file__).resolve().parents[2] / "docs"


def rules_of(world: Environment, *, agent: Agent | None = None, tokenizer: Tokenizer | None = None) -> Rules:
    rules = script_rules(world, agent=agent or Agent(), memory=Memory(threshold=0.65))
    return replace(rules, tokenizer=tokenizer or WordTokenizer())


def taught(world: Environment, rules: Rules, settings: Imitation, *, skip_bad: bool = False) -> Lessons:
    return lessons(settings, world, rules, seed=0, skip_bad=skip_bad, progress=lambda _: None)


def write(file: Path, world: Environment, rules: Rules, settings: Imitation) -> None:
    tally = asyncio.run(write_teacher(file, settings, world, rules, seed=0, progress=lambda _: None))
    assert (tally.kept, tally.said) == (settings.sessions, f"{settings.sessions} kept, 0 refused")


def same(one: Demonstration, other: Demonstration) -> bool:
    left, right = one.segment, other.segment
    assert (left.stream, left.position, left.last, one.wrote) == (right.stream, right.position, right.last, other.wrote)
    for name in ("token_ids", "action_mask", "turn_ids", "rewards", "versions", "behavior_logprobs"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    np.testing.assert_array_equal(one.returns, other.returns)
    return True


@pytest.mark.parametrize(
    ("world", "settings", "agent"),
    [
        (SHOP, {}, Agent()),
        (SHOP, {"answers": "guess", "asking": "judgement", "warm_share": 1.0}, Agent()),
        (SHOP, {"search_rows": 8}, Agent(forced=True)),
        (SHOP, {}, Agent(bar=("RetrieveMemory", "Reflection"))),
        (Recurring(seed=0), {"asked_share": 0.5}, Agent()),
        (Searched(), {"wrong_queries": 0.5, "asked_share": 0.1}, Agent()),
    ],
    ids=["shop", "guesses", "forced", "barred", "recurring", "slips"],
)
def test_the_teachers_sessions_are_read_back_as_the_same_batches(
    tmp_path: Path, world: Environment, settings: dict[str, float | str], agent: Agent
):
    rules = rules_of(world, agent=agent)
    script = Imitation.model_validate({"sessions": 160, "batch": 64} | settings)
    write(tmp_path / "demos.jsonl", world, rules, script)
    expected = taught(world, rules, script)
    found = taught(world, rules, script.model_copy(update={"sessions": tmp_path / "demos.jsonl"}))
    assert found.left_out == expected.left_out
    assert [len(batch) for batch in found.batches] == [len(batch) for batch in expected.batches]
    assert sum(map(len, found.batches)) > 40
    for batch, other in zip(found.batches, expected.batches, strict=True):
        assert all(same(one, its) for one, its in zip(batch, other, strict=True))


def test_asks_in_words_are_written_and_read_back_and_refused_where_asks_carry_none(tmp_path: Path):
    rules, file = replace(rules_of(SHOP), worded=frozenset({Function.SEEK_ADVICE})), tmp_path / "demos.jsonl"
    script = Imitation(sessions=64, batch=64, asked_share=0.5)
    write(file, SHOP, rules, script)
    read = script.model_copy(update={"sessions": file})
    (expected,), (found,) = taught(SHOP, rules, script).batches, taught(SHOP, rules, read).batches
    assert all(same(one, its) for one, its in zip(found, expected, strict=True))
    with pytest.raises(ConfigError, match=r"asks carry no words, by env\.expert; \[SeekAdvice\]: found "):
        taught(SHOP, replace(rules, worded=frozenset()), read)


def test_a_models_tokenizer_reads_the_same_tokens_and_another_one_reads_the_same_words(tmp_path: Path):
    folder, file = write_model_folder(tmp_path / "model"), tmp_path / "demos.jsonl"
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    model = HFTokenizer(folder)
    agent = Agent(session_tokens=2000, turn_tokens=400)
    script = Imitation(sessions=64, batch=64)
    read = script.model_copy(update={"sessions": file})
    rules = rules_of(SHOP, agent=agent, tokenizer=model)
    rules = replace(rules, memory=rules.memory.model_copy(update={"entry_tokens": 500}))  # nothing is cut off
    write(file, SHOP, rules, script)
    (expected,), (found,) = taught(SHOP, rules, script).batches, taught(SHOP, rules, read).batches
    assert all(same(one, its) for one, its in zip(found, expected, strict=True))
    words = replace(rules, tokenizer=WordTokenizer())
    (other,) = taught(SHOP, words, read).batches
    assert [model.decode(one.segment.token_ids.tolist()[1:]) for one in found] == [
        words.tokenizer.decode(one.segment.token_ids.tolist()) for one in other
    ]


def call(function: str, words: str | None = None, reply: str | None = None) -> dict[str, str]:
    given = {"call": f"[{function}]", "words": words, "reply": reply}
    return {name: value for name, value in given.items() if value is not None}


READS = (call("GetQuestion"), call("RetrieveMemory"))
ENDS = (call("SubmitAnswer"), call("ClearContext"))
STREAM = 1_000_000
QUESTIONS = SHOP.stream(split="train", index=STREAM).questions
PLACE = next(place for place, question in enumerate(QUESTIONS) if not question.query)
QUESTION = QUESTIONS[PLACE]
SEARCH = next(question for question in QUESTIONS if question.query)
FIRST = [*READS, call("SeekAdvice"), call("Reflection", "all is well"), call("UpdateMemory"), *ENDS]


def row(*calls: dict[str, str], question: str = QUESTION.id, **others: object) -> str:
    return json.dumps({"stream": STREAM, "question": question, "calls": calls} | others)


def answer(words: str) -> list[dict[str, str]]:
    return [*READS, call("PredictAnswer", words), *ENDS]


WRONG = {
    "broken JSON": ('{"stream": 1000000, ', "not a demonstration; Invalid JSON: EOF while parsing"),
    "unknown function": (row(*READS, call("Wait"), *ENDS), r"not a demonstration; calls.2.call: .* found '\[Wait\]'"),
    "unknown key": (row(*answer("x"), ids=[1, 2]), "not a demonstration; ids: Extra inputs are not permitted"),
    "text for a number": (row(*answer("x"), stream="1"), "not a demonstration; stream: .* valid integer, found '1'"),
    "words after nothing": (
        row(*READS, call("UpdateMemory", "steel rusts"), *ENDS),
        r"not a demonstration; calls.2: no words follow \[UpdateMemory\], found 'steel rusts'",
    ),
    "a reply to nothing": (row(*READS, call("SubmitAnswer", reply="right"), ENDS[1]), "nothing replies to"),
    "no end": (row(*READS, call("SeekAdvice")), r"\[ClearContext\] is the last call, .* found it nowhere"),
    "two ends": (row(*answer("x"), *ENDS), "found it at 4, 6"),
    "no such question": (row(*answer("x"), question="none"), "no such question; 'none' is not in shop/.*/1000000"),
    "a stream of PPO": (row(*answer("x"), stream=3), "a stream of PPO; stream: at least 1000000, found 3"),
    "nothing to submit": (row(*READS, *ENDS), r"the rules refuse a call; \[SubmitAnswer\]: error : nothing to submit"),
    "no advice": (
        row(*READS, call("Reflection", "steel rusts"), call("UpdateMemory"), *ENDS),
        r"the rules refuse a call; \[UpdateMemory\]: error : memory is written only after advice",
    ),
    "another tool": (
        row(*READS, call("Search", "steel"), *ENDS),
        r"the rules refuse a call; \[Search\]: error : there is no such tool , use SearchProduct",
    ),
    "a question twice": (row(READS[0], *answer("x")), r"\[GetQuestion\]: error : the question is shown above"),
    "a wrong answer": (row(*answer("xyz")), "judged wrong; the judge takes 'xyz' for wrong, found right: true"),
    "a right answer": (row(*answer(QUESTION.answer), right=False), "judged right; .* found right: false"),
    "no answer": (row(*READS, ENDS[1]), "judged wrong; nothing was submitted, found right: true"),
    "another memory": (
        row(READS[0], call("RetrieveMemory", reply="history : none knowledge : all was well"), *answer("x")[2:]),
        r"a reply differs; \[RetrieveMemory\]: recorded '.* all was well', found '.*'",
    ),
    "another result": (
        row(*READS, call("SearchProduct", SEARCH.query, "rows : p0"), *ENDS, question=SEARCH.id),
        r"a reply differs; \[SearchProduct\]: recorded '.*p0', found 'rows : .*'",
    ),
    "a long turn": (row(*answer("very " * 60)), r"ran out of a budget; \[PredictAnswer\]: a turn of .* room for 48"),
    "many turns": (
        row(*READS, *[call("SearchProduct", "SELECT nothing")] * 12, *answer("x")[2:]),
        r"ran out of a budget; agent.session_tokens is 320, .* agent.turns 12",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), WRONG.values(), ids=WRONG)
def test_a_line_that_is_wrong_is_named_and_left_out_if_it_may_be(tmp_path: Path, line: str, reason: str):
    file, rules = tmp_path / "demos.jsonl", rules_of(SHOP)
    right = row(*answer(QUESTION.answer))
    file.write_text(f"{row(*FIRST)}\n\n{line}\n{right}\n")
    settings = Imitation(sessions=file)
    with pytest.raises(ConfigError, match=f"demos.jsonl:3: .*{reason}.*; mend or remove"):
        taught(SHOP, rules, settings)
    found = taught(SHOP, rules, settings, skip_bad=True)
    assert [len(batch) for batch in found.batches] == [2]
    ((why, count),) = found.left_out.items()
    assert why.startswith("lines refused: ")
    assert count == 1


def test_a_refused_line_leaves_nothing_in_memory(tmp_path: Path):
    """The second line asks and would remember, but is refused, so the third reads what the first has written."""
    file, rules = tmp_path / "demos.jsonl", rules_of(SHOP)
    later = next(one for one in QUESTIONS[PLACE + 1 :] if not one.query and one.item == QUESTION.item)
    said = f"history : {QUESTION.text} {QUESTION.advice} knowledge : all is well"
    reads = [READS[0], call("RetrieveMemory", reply=said), call("PredictAnswer", later.answer), *ENDS]
    lines = [
        row(*FIRST),
        row(*FIRST, question=QUESTION.id, right=False),
        row(*reads, question=later.id),
        row(*FIRST, question=later.id, learn=False),
    ]
    file.write_text("\n".join(lines))
    found = taught(SHOP, rules, Imitation(sessions=file), skip_bad=True)
    assert found.left_out == {"lines refused: judged right": 1}
    assert sorted(one.segment.position for batch in found.batches for one in batch) == [
        PLACE,
        QUESTIONS.index(later),
    ]


def test_a_run_ends_with_the_first_few_lines_that_are_wrong(tmp_path: Path):
    file, played = tmp_path / "demos.jsonl", list[int]()
    file.write_text(f"{row(*answer('xyz'))}\n" * 40)
    with pytest.raises(ConfigError) as refused:
        lessons(Imitation(sessions=file), SHOP, rules_of(SHOP), seed=0, progress=played.append)
    assert [f"demos.jsonl:{line}:" in str(refused.value) for line in range(1, NAMED + 2)] == [True] * NAMED + [False]
    assert max(played) < NAMED + 1
    with pytest.raises(ConfigError, match=r"demos.jsonl:1: judged wrong; .*; no session is left"):
        taught(SHOP, rules_of(SHOP), Imitation(sessions=file), skip_bad=True)


def test_a_file_without_a_session_to_learn_is_an_error(tmp_path: Path):
    file = tmp_path / "demos.jsonl"
    for content in ("", f"{row(*FIRST, learn=False)}\n"):
        file.write_text(content)
        with pytest.raises(ConfigError, match=r"demos.jsonl: .* at least one session to learn, found none"):
            taught(SHOP, rules_of(SHOP), Imitation(sessions=file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"imitation.sessions: a number, or a file .* found .*none.jsonl \(No such"):
        taught(SHOP, rules_of(SHOP), Imitation(sessions=tmp_path / "none.jsonl"))


def test_nothing_may_be_imitated():
    found = taught(SHOP, rules_of(SHOP), Imitation(sessions=0))
    assert (found.batches, found.left_out) == ([], {})
    searches = taught(SHOP, rules_of(SHOP), Imitation(sessions=0, search_rows=5)).batches
    assert [len(batch) for batch in searches] == [5]


@pytest.mark.parametrize(
    ("value", "found"),
    [("0", 0), (12, 12), ("20_000", 20_000), ("a.jsonl", Path("a.jsonl"))],
)
def test_sessions_are_a_number_or_a_file(value: object, found: object):
    assert Imitation.model_validate({"sessions": value}).sessions == found


@pytest.mark.parametrize("value", [-1, "-2", 2.5, True, None, ""])
def test_other_sessions_are_refused(value: object):
    with pytest.raises(ValueError, match=r"sessions"):
        Imitation.model_validate({"sessions": value})


def test_another_teachers_file_is_not_overwritten(tmp_path: Path):
    file, rules = tmp_path / "demos.jsonl", rules_of(SHOP)
    write(file, SHOP, rules, Imitation(sessions=64))
    content = file.read_bytes()
    file.write_bytes(content[:2000])  # of a writer that was killed
    write(file, SHOP, rules, Imitation(sessions=64))
    assert file.read_bytes() == content
    with pytest.raises(ConfigError, match=r"--output: .* has other sessions than this teacher plays"):
        write(file, SHOP, rules, Imitation(sessions=64, asked_share=1.0))
    assert file.read_bytes() == content


def example() -> Sequence[str]:
    """The lines of the example in docs/extending.md."""
    text = (DOCS / "extending.md").read_text()
    return text.partition("```jsonl\n")[2].partition("\n```")[0].splitlines()


def test_the_example_of_the_docs_plays(tmp_path: Path):
    (tmp_path / "demos.jsonl").write_text("\n".join(example()))
    world = Recurring(seed=0)
    found = taught(world, rules_of(world), Imitation(sessions=tmp_path / "demos.jsonl"))
    assert [len(batch) for batch in found.batches] == [len(example())]


def test_the_schema_of_the_docs_is_current():
    written = json.loads((DOCS / "demonstration.schema.json").read_text())
    assert written == Row.model_json_schema(), "write json.dumps(Row.model_json_schema(), indent=2) there"
