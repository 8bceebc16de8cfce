import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agile_ray.config import Env
from agile_ray.errors import ConfigError
from envs import build
from envs.dataset.dataset import SPLITS

ROWS = [
    {"question": f"what is {number} ?", "label": f"answer {number % 3}", "item": f"i{number // 2}"}
    for number in range(20)
]
COLUMNS = {"text": "question", "answer": "label"}


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(path, **keys):
    environment = build(
        Env(name="dataset", data=path, columns=COLUMNS) if not keys else Env(name="dataset", data=path, **keys), seed=0
    )
    return {split: environment.stream(split=split, index=0).questions for split in SPLITS}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet"])
def test_every_format_gives_the_same_questions(tmp_path, ending):
    found = questions(write(tmp_path / f"q.{ending}", ROWS))
    assert found == questions(write(tmp_path / "same.jsonl", ROWS))
    assert [len(found[split]) for split in SPLITS] == [12, 12, 4, 4]


def test_rows_of_one_item_stay_together_and_splits_stay_apart(tmp_path):
    found = questions(write(tmp_path / "q.csv", ROWS))
    items = {split: {one.item for one in found[split]} for split in ("train", "validation", "test")}
    assert sum(map(len, items.values())) == len(set().union(*items.values())) == 10
    assert found["imitation"] == found["train"]


def test_id_text_and_answer_are_enough_and_the_rest_follows(tmp_path):
    [first, *_] = questions(
        write(tmp_path / "q.jsonl", [{"text": f"t{n}", "answer": "a"} for n in range(5)]), columns={}
    )["train"]
    assert (first.shown, first.item, first.advice, first.topic) == (first.text, first.text, "a", "question")
    assert (first.product, first.query, first.knowledge) == ("", "", "")
    assert first.id.isdecimal()


def test_a_guess_is_the_commonest_training_answer_of_the_kind(tmp_path):
    rows = [{"text": f"t{n}", "answer": "no" if n < 6 else "yes", "kind": "k", "split": "train"} for n in range(8)]
    rows += [{"text": f"v{n}", "answer": "yes", "kind": "k", "split": ("validation", "test")[n]} for n in range(2)]
    rows.append({"text": "own", "answer": "x", "kind": "k", "split": "train", "guess": "y", "guess_probability": 0.25})
    found = questions(
        write(tmp_path / "q.csv", [{"guess": "", "guess_probability": ""} | row for row in rows]), columns={}
    )
    assert {(one.guess, one.guess_probability) for one in (*found["validation"], *found["test"])} == {("no", 6 / 9)}
    assert (found["train"][-1].guess, found["train"][-1].guess_probability) == ("y", 0.25)


@pytest.mark.parametrize(
    ("rows", "keys", "says"),
    [
        (
            ROWS,
            {"columns": {}},
            "q.csv:2: text: a row needs this column, found question, label, item; name the columns",
        ),
        (ROWS, {"columns": {"txt": "question"}}, "env.columns: the fields are .* found txt; did you mean text?"),
        ([*ROWS, {"question": "x", "label": "", "item": ""}], {}, "q.csv:22: answer: must hold a text, found ''"),
        (ROWS[:3], {}, "three items or more, one each for train, validation and test, found 2; add rows"),
        ([row | {"split": "train"} for row in ROWS], {}, "found none for validation, test in its column `split`"),
        (ROWS, {"columns": {}, "skip_bad": True}, "found 20 broken ones, such as .*q.csv:2: text: a row needs this"),
        ([row | {"split": "dev"} for row in ROWS], {}, "q.csv:2: split: Input should be 'imitation', 'train'"),
        ([row | {"id": "same"} for row in ROWS], {}, "q.csv:3: id: no two rows may have the same"),
        ([row | {"guess": "a", "guess_probability": 2} for row in ROWS], {}, "guess_probability: Input should be less"),
        ([row | {"guess_probability": 0.5} for row in ROWS], {}, "guess_probability: is that of `guess`, found none"),
    ],
)
def test_a_bad_file_is_an_error_with_line_and_column(tmp_path, rows, keys, says):
    with pytest.raises(ConfigError, match=says):
        questions(write(tmp_path / "q.csv", rows), **({"columns": COLUMNS} | keys))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("q.csv", b"text,answer\na,b\nc,d,e\n", "q.csv:3: a row has a cell for each of the 2 columns, found 3 cells"),
        ("q.csv", b"text,answer\na,b\nc\n", "q.csv:3: answer: must hold a text, found ''"),
        ("q.csv", b"text,answer,answer\na,b,\n", "q.csv:1: each column has a name of its own, found 'answer' twice"),
        ("q.csv", b"text;answer\na;b\n", "q.csv:1: columns are separated by commas, found 'text;answer'"),
        ("q.csv", b"", "q.csv: there must be at least one row that can be used, found none"),
        ("q.csv", b"text,answer\n", "q.csv: there must be at least one row that can be used, found none"),
        ("q.csv", "text,answer\na,\xf8\n".encode("latin-1"), "q.csv: must be text in UTF-8, found .*0xf8"),
        ("q.xlsx", b"PK", "a file of questions .* found .*q.xlsx$"),
    ],
)
def test_a_file_that_is_no_table_of_questions_is_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        questions(tmp_path / name, columns={})


def test_broken_rows_are_left_out_and_counted_on_demand(tmp_path):
    path = write(tmp_path / "q.csv", [*ROWS, {"question": "x", "label": "", "item": ""}])
    environment = build(Env(name="dataset", data=path, columns=COLUMNS, skip_bad=True), seed=0)
    assert [problem.partition(": ")[2] for problem in environment.skipped] == ["answer: must hold a text, found ''"]


@pytest.mark.parametrize("data", [None, "nowhere.csv"])
def test_a_missing_file_is_an_error(data):
    with pytest.raises(ConfigError, match="env.data: dataset needs a file of questions"):
        build(Env(name="dataset", data=data), seed=0)
