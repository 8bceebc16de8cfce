"""ProductQA: the real files, where they are available, and a tiny folder in the same format."""

import json
import math
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import envs
from agile_ray.agent.environment import Question, Submission, skipped, taught_split
from agile_ray.config import Agent, Env
from agile_ray.config import Memory as MemoryConfig
from agile_ray.errors import ConfigError
from agile_ray.scripted.references import Habits, reference
from agile_ray.types import Session
from agile_ray.units import Part
from configs import __path__ as configs_folder
from envs.productqa import CategoryStream, ProductQA, build
from envs.sql import SqlTool
from tests.fakes.streams import play_streams, script_rules

COST = 300  # thousandths
AGENT = Agent(turn_tokens=128, session_tokens=416)
DATA = Path(os.environ.get("AGILE_DATA", Path(__file__).resolve().parents[2] / "data"))
FOLDER = DATA / "productqa" if (DATA / "productqa").is_dir() else DATA
CATEGORIES = sorted(path.parent for path in FOLDER.glob("t*/*/qa.jsonl"))
TEST_CATEGORIES = [path for path in CATEGORIES if path.parent.name == "test"]
IN_TIME = (*TEST_CATEGORIES[:1], *[path for path in CATEGORIES if path.parent.name == "train"][:1])
"""The categories of `make test`; the others are left to `make test-long`."""


def of_each(categories: Sequence[Path]) -> pytest.MarkDecorator:
    """Run a data test once for each category folder, or skip it where there is none."""
    missing = pytest.param(Path(), marks=pytest.mark.skip(reason=f"no ProductQA files in {DATA}; set AGILE_DATA"))
    given = [pytest.param(path, marks=[] if path in IN_TIME else pytest.mark.long) for path in categories]
    return pytest.mark.parametrize("category", given or [missing], ids=lambda path: path.name)


# A tiny folder in the same format.


def fact(number: int, asin: str, question: str, short_answer: str) -> dict[str, object]:
    return {
        "id": f"fact_qa_{number}",
        "asin": asin,
        "question": question,
        "long_answer": f"Reviews say {short_answer}.",
        "short_answer": short_answer,
        "type": "fact_qa",
        "extra_data": None,
    }


def reasoning(number: int, asin: str, knowledge: str, short_answer: str) -> dict[str, object]:
    return {
        **fact(number, asin, "Is it fine for sauce?", short_answer),
        "id": f"reasoning_qa_{number}",
        "type": "reasoning_qa",
        "extra_data": {"knowledge": knowledge, "feature_name": "Material", "feature_value": "iron"},
    }


def search(number: int, asin: str, where: str, hits: Sequence[str]) -> dict[str, object]:
    return {
        "id": f"search_qa_{number}",
        "asin": asin,
        "question": f"Which one has {where}?",
        "long_answer": "Here is one.",
        "short_answer": [{"asin": hit, "title": TITLES[hit]} for hit in hits],
        "type": "search_qa",
        "extra_data": {
            "sql": f"SELECT product_id FROM `pans` WHERE {where} LIMIT 1;",
            "answer": f"SELECT product_id FROM `pans` WHERE {where} ;",
            "question2sql": "SELECT nothing",
        },
    }


TITLES = {"B01": "Flat &amp; wide 10&quot; pan", "B02": "Deep pan", "B03": "Wok"}
PANS = [
    fact(0, "B01", "Is it  heavy?", "Yes"),
    search(0, "B02", "price < 25", ["B01", "B02"]),
    reasoning(0, "B01", "iron rusts", "no"),
    search(1, "B01", "price > 99", []),
    fact(1, "B01", "What is it made of?", "Cast &amp; iron"),
    reasoning(1, "B02", "iron rusts", "yes"),
]
LIDS = [
    fact(0, "B01", "Does it fit?", "no"),
    fact(1, "B01", "Is it clear?", "No "),
    fact(2, "B01", "How big?", "10 in"),
]


def write_category(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    folder.mkdir(parents=True)
    (folder / "qa.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    features = {"price": "10", "brand": "Lodge", "Material": "iron", "Shape": None}
    (folder / "metadata.json").write_text(
        json.dumps({asin: {"title": title, **features} for asin, title in TITLES.items()})
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    write_category(tmp_path / "train" / "lids", LIDS)
    write_category(tmp_path / "train" / "cups", LIDS[:1])
    write_category(tmp_path / "test" / "pans", PANS)
    connection = sqlite3.connect(tmp_path / "product_qa.db")
    for table in ("lids", "cups", "pans"):
        connection.execute(f"CREATE TABLE {table} (id INTEGER, asin TEXT, title TEXT, price NUMERIC, brand TEXT)")
        for number, (asin, title) in enumerate(TITLES.items()):
            connection.execute(
                f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", (number, asin, title, 10 * number + 10, "Lodge")
            )
    connection.commit()
    connection.close()
    return tmp_path


@pytest.fixture
def pans(tiny: Path) -> CategoryStream:
    return ProductQA(tiny).stream(split="test", index=0)


def by_id(stream: CategoryStream, question_id: str) -> Question:
    return next(question for question in stream.questions if question.id == question_id)


def test_questions_come_in_file_order_with_all_that_an_agent_needs(pans: CategoryStream) -> None:
    assert [question.id for question in pans.questions] == [row["id"] for row in PANS]
    assert by_id(pans, "fact_qa_0") == Question(
        id="fact_qa_0",
        product="B01",
        kind="fact",
        topic="fact",
        text="Is it heavy?",
        shown="products : price number | brand : Lodge\n"
        'Flat & wide 10" pan ; price 10 ; brand Lodge ; Material iron\nquestion : Is it heavy?',
        item="B01/is it heavy?/yes",
        answer="Yes",
        advice="Yes . Reviews say Yes.",
        knowledge="",
        query="",
        guess="no",
        guess_probability=0.75,
    )
    found = by_id(pans, "search_qa_0")
    assert (found.query, found.answer, found.kind) == (
        "SELECT product_id FROM products WHERE price < 25 LIMIT 1",
        "B01 B02",
        "search",
    )
    assert by_id(pans, "search_qa_1").answer == "none"
    assert by_id(pans, "reasoning_qa_0").item == by_id(pans, "reasoning_qa_1").item == "iron rusts"
    assert by_id(pans, "reasoning_qa_0").knowledge == "no . iron rusts"
    assert by_id(pans, "reasoning_qa_1").knowledge == "yes . iron rusts"


def test_guesses_come_from_the_files_that_are_trained_on(tiny: Path) -> None:
    def guess(environment: ProductQA) -> tuple[str, float]:
        question = environment.stream(split="test", index=0).questions[0]
        return question.guess, question.guess_probability

    assert guess(ProductQA(tiny, train=["cups"])) == ("no", 1.0)
    assert guess(ProductQA(tiny, train=["pans"], test=["lids"])) == ("yes", 0.5)
    assert guess(ProductQA(tiny, train=["not there"])) == ("yes", 0.5)


@pytest.mark.parametrize(
    ("question", "text", "rows", "right"),
    [
        ("fact_qa_0", "yes", None, True),
        ("fact_qa_0", " YES\n", None, True),
        ("fact_qa_0", "yes .", None, False),
        ("fact_qa_0", "", None, False),
        ("fact_qa_0", "yes", ("B01",), False),
        ("fact_qa_1", "cast &  Iron", None, True),
        ("search_qa_0", "", ("B01",), True),
        ("search_qa_0", "", ("B02", "B01"), True),
        ("search_qa_0", "", ("B01", "B03"), False),
        ("search_qa_0", "", (), False),
        ("search_qa_1", "", (), True),
        ("search_qa_1", "", ("B01",), False),
        ("search_qa_0", "take b01", None, True),
        ("search_qa_0", 'the FLAT & wide 10" pan or B02', None, True),
        ("search_qa_0", "b01 or the wok", None, False),
        ("search_qa_0", "b03", None, False),
        ("search_qa_0", "yes", None, False),
        ("search_qa_1", "none", None, False),
    ],
)
def test_the_judge_follows_the_released_rules(
    pans: CategoryStream, question: str, text: str, rows: tuple[str, ...] | None, right: bool
) -> None:
    assert pans.judge(by_id(pans, question), Submission(text=text, rows=rows)) is right


TITLED = {"1": "Wok", "12": "Wok lid", "A-1": "Pan 12 in", "A-1-C": "Flat pan &amp; wok", "120": "Wok"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("12", {"12"}),
        ("product 12 , or 1.", {"12", "1"}),
        ("1, 12;120", {"1", "12", "120"}),
        ("1.12 of 12-inch x12 12a 5.12", set[str]()),
        ("take A-1", {"A-1"}),
        ("take A-1-C", {"A-1-C"}),
        ("take A-1-D", set[str]()),
        ("the wok lid", {"12"}),
        ("the wok-lid", set[str]()),
        ("WOKS", set[str]()),
        ("a wok", {"1", "120"}),
        ("flat pan & wok", {"A-1-C"}),
        ("pan 12 in and wok lid", {"A-1", "12"}),
    ],
)
def test_a_text_names_a_product_by_whole_words_and_by_the_longest_name(tiny: Path, text: str, named: set[str]) -> None:
    pans = tiny / "test" / "pans"
    (pans / "metadata.json").write_text(json.dumps({asin: {"title": title} for asin, title in TITLED.items()}))
    connection = sqlite3.connect(tiny / "product_qa.db")
    connection.executemany("INSERT INTO pans (asin) VALUES (?)", [(asin,) for asin in TITLED])
    connection.commit()
    connection.close()
    hits = [{"asin": asin, "title": TITLED[asin]} for asin in sorted(named)]
    (pans / "qa.jsonl").write_text(json.dumps({**PANS[1], "short_answer": hits}))
    stream = ProductQA(tiny).stream(split="test", index=0)
    assert stream.judge(stream.questions[0], Submission(text=text, rows=None)) is bool(named)
    for fewer in hits:
        (pans / "qa.jsonl").write_text(json.dumps({**PANS[1], "short_answer": [hit for hit in hits if hit != fewer]}))
        stream = ProductQA(tiny).stream(split="test", index=0)
        assert not stream.judge(stream.questions[0], Submission(text=text, rows=None))


def test_advice_that_is_the_gold_answer_is_right_and_other_advice_is_wrong(pans: CategoryStream) -> None:
    for question in pans.questions:
        assert pans.judge(question, Submission(text=question.answer, rows=None, advised=True))
        assert not pans.judge(question, Submission(text="perhaps", rows=None, advised=True))


def test_gold_queries_run_and_an_unknown_column_returns_an_error_text(pans: CategoryStream) -> None:
    assert pans.search(by_id(pans, "search_qa_0").query).rows == ("B01",)
    assert pans.search(by_id(pans, "search_qa_1").query).text == "rows : none"
    assert pans.search("SELECT product_id FROM pans WHERE Material = 'iron'").text == "error : no such column: Material"


def test_training_continues_after_the_last_category_at_other_offsets(tiny: Path) -> None:
    environment = ProductQA(tiny, train=["lids", "cups"])
    assert environment.streams("train") == 2
    streams = [environment.stream(split="train", index=index) for index in range(8)]
    assert [stream.id for stream in streams[:3]] == [f"productqa/train/{end}" for end in ("lids/0", "cups/1", "lids/2")]
    assert len({stream.id for stream in streams}) == 8
    first = [question.id for question in streams[0].questions]
    assert first == [row["id"] for row in LIDS]
    assert [question.id for question in streams[2].questions] == first[1:] + first[:1]
    assert {len(set(stream.questions)) for stream in streams[::2]} == {3}
    with pytest.raises(ConfigError, match="the test split has 1 streams, asked for number 1"):
        environment.stream(split="test", index=1)


def test_splits_default_to_the_folders_without_the_held_out_categories(tiny: Path) -> None:
    environment = ProductQA(tiny, validation=["cups"])
    assert [environment.streams(split) for split in ("train", "validation", "test")] == [1, 1, 1]
    assert not any("pans" in text for text in environment.texts())
    assert list(environment.texts()) == list(environment.texts())


@pytest.mark.parametrize("category", ["lids", "cups"])
def test_a_tokenizer_sees_the_training_categories_alone(tiny: Path, category: str) -> None:
    environment = ProductQA(tiny, train=[category])
    questions, texts = environment.stream(split="train", index=0).questions, environment.texts()
    assert len(texts) == 4 * len(questions) + 1  # four of each question, and the tool's errors
    assert all(any(question.shown in text for text in texts) for question in questions)


@pytest.mark.parametrize(
    ("named", "keys"),
    [
        ({"train": ("pans", "cups"), "test": ("pans",)}, ("train", "test")),
        ({"train": ("lids", "pans")}, ("train", "test")),
        ({"validation": ("pans",)}, ("validation", "test")),
        ({"train": ("lids",), "validation": ("cups", "lids"), "test": ("pans",)}, ("train", "validation")),
    ],
)
def test_two_splits_that_share_a_category_are_refused_by_both_keys(
    tiny: Path, named: dict[Part, tuple[str, ...]], keys: tuple[str, str]
) -> None:
    with pytest.raises(ConfigError, match="env.categories.{}, env.categories.{}: .* in both".format(*keys)):
        envs.build(Env(name="productqa", data=tiny, categories=named), seed=0)
    with pytest.raises(ConfigError, match="env.categories.{}, env.categories.{}: .* in both".format(*keys)):
        ProductQA(tiny, **named)


def test_splits_of_any_environment_share_no_category() -> None:
    with pytest.raises(ConfigError, match="env.categories.train, env.categories.test: .*found lamps in both"):
        envs.build(Env(name="recurring", categories={"train": ("lamps", "tents"), "test": ("lamps",)}), seed=0)


def test_a_category_on_both_sides_is_refused(tiny: Path) -> None:
    write_category(tiny / "train" / "pans", PANS)
    with pytest.raises(ConfigError, match="found pans under both"):
        ProductQA(tiny)


def test_wrong_folders_and_names_are_refused_in_one_line(tiny: Path) -> None:
    def complaint(environment: ProductQA | None = None, *, folder: Path | None = None, split: str = "test") -> str:
        with pytest.raises(ConfigError) as error:
            (environment or ProductQA(folder)).streams(split)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "env.data: productqa needs the folder" in complaint()
    assert "has neither train/ nor test/; name a clone of the AGILE release" in complaint(folder=tiny / "train")
    assert "env.categories.test: no category 'pan'" in complaint(ProductQA(tiny, test=["pan"]))
    assert "the nearest known ones are pans" in complaint(ProductQA(tiny, test=["pan"]))
    assert "no category '../train/lids'" in complaint(ProductQA(tiny, test=["../train/lids"]))
    assert "env.categories.test: there must be at least one category" in complaint(
        ProductQA(tiny, test=["pans", "pans"])
    )
    assert "env.categories.validation: there must be at least one category" in complaint(
        ProductQA(tiny), split="validation"
    )
    assert "no split 'dev'" in complaint(ProductQA(tiny), split="dev")
    (tiny / "product_qa.db").unlink()
    assert f"has no product_qa.db, nor is there {tiny.parent}/agile/product_qa.db; name" in complaint(folder=tiny)


def test_the_table_is_shown_by_its_names_or_with_values_and_units(tiny: Path) -> None:
    (tiny / "test" / "pans" / "schema.json").write_text(json.dumps({"price": {"type": "cloze", "unit": "dollar"}}))
    for values, shown in ((True, "products : price dollar | brand : Lodge"), (False, "products : price brand")):
        question = ProductQA(tiny, values=values).stream(split="test", index=0).questions[1]
        assert question.shown.splitlines()[0] == shown
        assert question.query_shown == f"{shown}\nquestion : {question.text}"
        assert question.wrong_query == "SELECT product_id FROM products WHERE prices < 25 LIMIT 1"


@pytest.mark.parametrize(
    "sql",
    ["SELECT product_id FROM `pans` WHERE price ASE", 'SELECT "', "", None, "SELECT product_id FROM pans LIMIT 3"],
)
def test_a_short_gold_query_that_fails_or_is_wrong_gives_way_to_the_long_one(tiny: Path, sql: str | None) -> None:
    row = search(0, "B01", "price < 25", ["B01", "B02"])
    row |= {"extra_data": {"sql": sql, "answer": "SELECT product_id FROM `pans` WHERE price < 25 ;"}}
    (tiny / "test" / "pans" / "qa.jsonl").write_text(json.dumps(row))
    [question] = ProductQA(tiny).stream(split="test", index=0).questions
    assert question.query == "SELECT product_id FROM products WHERE price < 25"


def test_imitation_plays_categories_of_its_own(tiny: Path) -> None:
    split: dict[Part, tuple[str, ...]] = {"imitation": ("cups",), "validation": ("pans",), "test": ("lids",)}
    with pytest.raises(ConfigError, match=r"env.categories.train: there must be at least one"):
        envs.build(Env(name="productqa", data=tiny, categories=split), seed=0).streams("train")
    environment = ProductQA(tiny, imitation=["cups"])
    assert taught_split(environment) == "imitation"
    assert taught_split(ProductQA(tiny)) == "train"
    ids = [environment.stream(split=one, index=0).id for one in ("imitation", "train")]
    assert ids == ["productqa/imitation/cups/0", "productqa/train/lids/0"]
    assert environment.stream(split="imitation", index=1_000_000).id == "productqa/imitation/cups/1000000"
    with pytest.raises(ConfigError, match="env.categories.train, env.categories.imitation: .*found cups in both"):
        ProductQA(tiny, imitation=["cups"], train=["cups"])
    cut = envs.build(Env(name="productqa", data=tiny, categories={"imitation": ("lids",)}, stream_sessions=2), seed=0)
    assert taught_split(cut) == "imitation"
    assert cut.streams("imitation") == 1


def test_broken_rows_are_left_out_and_named_if_asked(tiny: Path) -> None:
    lost = search(7, "B01", "price < 25", [])
    lost["short_answer"] = [{"asin": "B09", "title": "Gone"}]
    rows = [json.dumps(PANS[0]), "{", json.dumps(PANS[0]), json.dumps(lost), json.dumps(PANS[2])]
    (tiny / "test" / "pans" / "qa.jsonl").write_text("\n".join(rows))
    with pytest.raises(ConfigError, match="qa.jsonl:2: .*; mend or remove the row, or set env.skip_bad=true"):
        ProductQA(tiny).stream(split="test", index=0)
    environment = envs.build(Env(name="productqa", data=tiny, skip_bad=True, stream_sessions=5), seed=0)
    assert [question.id for question in environment.stream(split="test", index=0).questions] == [
        "fact_qa_0",
        "reasoning_qa_0",
    ]
    problems = skipped(environment)
    assert [problem.split(":")[1] for problem in problems[:2]] == ["2", "3"]
    assert "found 'B09'" in problems[2]
    assert len(problems) == 3


def test_a_clone_of_the_release_is_found(tiny: Path) -> None:
    clone = tiny / "AGILE"
    (clone / "agile").mkdir(parents=True)
    (clone / "data").mkdir()
    (tiny / "product_qa.db").rename(clone / "agile" / "product_qa.db")
    for side in ("train", "test"):
        (tiny / side).rename(clone / "data" / side)
    assert ProductQA(clone).streams("test") == ProductQA(clone / "data").streams("test") == 1


def test_the_release_is_read_as_it_lies(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = tiny.parent / "agile"
    beside.mkdir()
    (tiny / "product_qa.db").rename(beside / "product_qa.db")
    for folder, cwd in ((tiny, tiny.parent), (Path(tiny.name), tiny.parent), (Path("."), tiny)):
        monkeypatch.chdir(cwd)
        pans = ProductQA(folder).stream(split="test", index=0)
        assert pans.search("SELECT product_id FROM products LIMIT 1").rows == ("B01",)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("qa.jsonl", "{}\n", r"qa.jsonl:1: id: Field required"),
        ("qa.jsonl", "not json\n", r"qa.jsonl:1: line: Invalid JSON"),
        ("qa.jsonl", "", r"at least one row that can be used, found none"),
        (
            "qa.jsonl",
            "\n".join(json.dumps(PANS[0]) for _ in range(2)),
            r"qa.jsonl:2: id: no two rows .* 'fact_qa_0' again",
        ),
        ("qa.jsonl", json.dumps({**PANS[0], "type": "search_qa"}), r"found type 'search_qa' with str"),
        ("qa.jsonl", json.dumps({**PANS[0], "type": "long_qa"}), r"found type 'long_qa'"),
        ("qa.jsonl", json.dumps({**PANS[0], "short_answer": math.nan}), r"qa.jsonl:1: short_answer.*valid string"),
        ("qa.jsonl", json.dumps({**PANS[0], "question": math.inf}), r"qa.jsonl:1: question: .*valid string"),
        (
            "qa.jsonl",
            json.dumps({**PANS[0], "short_answer": "&#8203;\n"}),
            r"qa.jsonl:1: short_answer must hold a text",
        ),
        (
            "qa.jsonl",
            json.dumps({**PANS[2], "short_answer": "&nbsp; \t"}),
            r"qa.jsonl:1: short_answer must hold a text",
        ),
        (
            "qa.jsonl",
            json.dumps(PANS[1]) + "\n\n" + json.dumps({**PANS[3], "question": ""}),
            r"qa.jsonl:3: question must",
        ),
        ("metadata.json", "[]", r"metadata.json: line: Input should be"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tiny: Path, file: str, content: str, message: str) -> None:
    (tiny / "test" / "pans" / file).write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        ProductQA(tiny).stream(split="test", index=0)
    assert "\n" not in str(error.value)


def test_files_with_a_byte_order_mark_are_read(tiny: Path, pans: CategoryStream) -> None:
    for file in (tiny / "test" / "pans").iterdir():
        file.write_text(file.read_text(), encoding="utf-8-sig")
    assert ProductQA(tiny).stream(split="test", index=0).questions == pans.questions


def test_a_number_that_is_none_is_absent(tiny: Path) -> None:
    folder = tiny / "test" / "pans"
    features = {"title": math.nan, "price": 5, "weight": -math.inf, "Shape": math.inf, "color": "NaN blue"}
    (folder / "metadata.json").write_text(json.dumps({"B01": features}))
    knowledge = {**PANS[2], "extra_data": {"knowledge": math.nan}}
    (folder / "qa.jsonl").write_text(json.dumps(knowledge))
    [question] = ProductQA(tiny).stream(split="test", index=0).questions
    assert question.shown.splitlines()[1] == "B01 ; price 5 ; color NaN blue"
    assert (question.knowledge, question.item) == ("", "B01/is it fine for sauce?")


def test_memory_answers_a_paraphrase_but_not_a_question_like_it_with_another_answer(tiny: Path) -> None:
    asked = ["Is the glass lid oven safe?", "Is that glass lid oven safe?", "Is the glass lid not oven safe?"]
    answers = ["yes", "Yes", "no"]
    rows = [fact(number, "B01", *row) for number, row in enumerate(zip(asked, answers, strict=True))]
    (tiny / "test" / "pans" / "qa.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    environment = ProductQA(tiny)  # it guesses "no", with probability 0.75
    first, paraphrase, other = environment.stream(split="test", index=0).questions
    assert first.item == paraphrase.item != other.item
    rules = script_rules(environment, agent=AGENT, memory=MemoryConfig())
    oracle = reference("oracle", environment, Habits())
    sessions = play_streams(oracle, environment, split="test", indices=[0], rules=rules, price=COST)
    assert [session.asks for session in sessions] == [1, 0, 0]
    assert [session.hindsight.known for session in sessions] == [False, True, False]
    assert all(session.correct for session in sessions)


@pytest.mark.parametrize("asin", ["b01", "B01 ", "B04", ""])
def test_a_gold_product_that_the_table_lacks_is_named(tiny: Path, asin: str) -> None:
    gold = [{"asin": "B02", "title": "Deep pan"}, {"asin": asin, "title": "Flat pan"}]
    (tiny / "test" / "pans" / "qa.jsonl").write_text(json.dumps({**PANS[1], "short_answer": gold}))
    with pytest.raises(
        ConfigError, match=f"question search_qa_0: .* table pans of product_qa.db, found '{asin}'; .*'B0"
    ):
        ProductQA(tiny).stream(split="test", index=0)


def test_the_config_builds_the_environment(tiny: Path) -> None:
    environment = build(Env(name="productqa", data=tiny, categories={"train": ("lids",), "test": ("pans",)}), seed=5)
    assert environment.stream(split="train", index=0).id == "productqa/train/lids/0"


# Scripted policies against direct counts.


def play(environment: ProductQA, policy: str) -> list[Session]:
    rules = script_rules(environment, agent=AGENT, memory=MemoryConfig())
    return play_streams(
        reference(policy, environment, Habits()), environment, split="test", indices=[0], rules=rules, price=COST
    )


def booked(sessions: Sequence[Session]) -> tuple[int, int, int]:
    """Sessions, right answers, thousandths paid."""
    assert not any(session.remarks or session.error for session in sessions)
    return len(sessions), sum(session.correct for session in sessions), sum(session.paid for session in sessions)


def counted(folder: Path) -> Counter[str]:
    """Counts from the file: all questions, searches, and the answers yes, no and other of the rest."""
    counts: Counter[str] = Counter()
    with (folder / "qa.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            counts["all"] += 1
            if row["type"] == "search_qa":
                counts["search"] += 1
            else:
                answer = row["short_answer"].strip().lower()
                counts[answer if answer in ("yes", "no") else "other"] += 1
    return counts


def assert_play_equals_the_count(folder: Path, category: Path) -> None:
    environment = ProductQA(folder, train=["not there"], test=[category.name])
    count = counted(category)
    everything, others = count["all"], count["all"] - count["search"]
    assert booked(play(environment, "always_ask")) == (everything, everything, COST * everything)
    assert booked(play(environment, "ask_unless_search")) == (everything, everything, COST * others)
    assert booked(play(environment, "yes_gold_sql")) == (everything, count["yes"] + count["search"], 0)


def test_scripted_play_equals_a_direct_count_of_the_tiny_folder(tiny: Path) -> None:
    assert_play_equals_the_count(tiny, tiny / "test" / "pans")


@pytest.mark.data
@of_each(TEST_CATEGORIES)
def test_scripted_play_equals_a_direct_count_of_the_files(category: Path) -> None:
    assert_play_equals_the_count(FOLDER, category)


@cache
def environment_of(category: Path) -> ProductQA:
    return ProductQA(FOLDER, train=["not there"], test=[category.name])


def gold_of(category: Path) -> Iterator[tuple[dict[str, str], frozenset[str]]]:
    """What the file says of each search question: its queries, and the ids that answer it."""
    with (category / "qa.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["type"] == "search_qa":
                yield row["extra_data"], frozenset(hit["asin"] for hit in row["short_answer"])


@pytest.mark.data
@of_each(CATEGORIES)
def test_every_gold_query_finds_a_gold_product_and_every_wrong_one_is_refused(category: Path) -> None:
    stream = environment_of(category).stream(split="test", index=0)
    tool = SqlTool(FOLDER / "product_qa.db", table=category.name, id_column="asin")
    searches = [question for question in stream.questions if question.query]
    long = 0
    for question, (queries, gold) in zip(searches, gold_of(category), strict=True):
        found = stream.search(question.query)
        assert found.rows is not None
        assert not found.bad_query
        assert gold.issuperset(found.rows)
        assert bool(found.rows) == bool(gold)
        assert frozenset(tool.search(queries["answer"]).rows or ()) == gold
        assert stream.search(question.wrong_query).bad_query
        long += "LIMIT 1" not in question.query
    assert long == (48 if category.name == "portable_power_banks" else 0)


@pytest.mark.data
@of_each(CATEGORIES)
def test_every_question_and_answer_of_a_category_is_read_and_judged_right(category: Path) -> None:
    stream = environment_of(category).stream(split="test", index=0)
    assert len(stream.questions) == counted(category)["all"]
    for question in stream.questions:
        assert question.text
        assert stream.judge(question, Submission(text=question.answer, rows=None)) is (
            question.kind != "search" or question.answer != "none"
        )
        table, _, rest = question.shown.partition("\n")
        assert table.startswith("products : ")  # spells values as queries must
        assert "&amp;" not in rest


@pytest.mark.data
@of_each(CATEGORIES[:1])
def test_the_48_queries_with_broken_quotes_are_bad_queries(category: Path) -> None:
    broken: Counter[str] = Counter()
    for folder in CATEGORIES:
        tool = SqlTool(FOLDER / "product_qa.db", table=folder.name, id_column="asin")
        for queries, gold in gold_of(folder):
            found = tool.search(queries["sql"])
            broken[found.text] += found.bad_query
            assert found.bad_query or gold.issuperset(found.rows or ())
    assert sum(broken.values()) >= 48  # more, if there are more categories than in the first download
    assert all(text.startswith("error : near") for text, times in broken.items() if times)


@pytest.mark.data
@of_each(CATEGORIES[:1])
def test_the_shipped_config_names_existing_categories_and_does_not_train_on_the_test_split(category: Path) -> None:
    from agile_ray.config_file import load

    config = load(Path(next(iter(configs_folder))) / "productqa.yaml", [f"env.data={FOLDER}"])
    environment = build(config.env, seed=config.seed)
    assert [environment.streams(split) for split in ("train", "validation", "test")] == [5, 3, 3]
    trained = {*config.env.categories["train"], *config.env.categories["validation"]}
    assert trained.isdisjoint(config.env.categories["test"])
    assert {path.name for path in CATEGORIES if path.parent.name == "train"} >= trained
    guess = environment.stream(split="test", index=0).questions[1]
    assert (guess.kind, guess.guess) == ("fact", "yes")
    assert 0.5 < guess.guess_probability < 0.8
