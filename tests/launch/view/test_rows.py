"""The table of sessions: its columns against the objects that they stand for, links, and names of runs."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agile_ray.agent.functions import Function
from agile_ray.errors import ConfigError
from agile_ray.evaluation.score import cause
from agile_ray.record import evaluations, store
from agile_ray.types import NO_WRITER, Ending, MemoryUse, Origin, Receipt
from launch.report.look.listing import CAUSES
from launch.view import query, rows
from launch.view.runs import MissingError, Runs
from launch.view.tokens import pieces
from tests.fakes.worlds import SESSION, changed
from tests.launch.test_show import STREAM, asking, keep, reading, turn


def some_session(random, number):
    """A session whose every field that a row is made of is drawn."""

    def use(writer):
        return MemoryUse(kind="qa", writer=writer, similarity=0.5)

    failed = random.random() < 0.2
    receipts = [
        Receipt(key="k", price=int(price), source="gold", latency_s=0.1, advice=f"advice {price}", answer="a")
        for price in random.integers(1, 500, random.integers(0, 3))
    ]
    return changed(
        SESSION,
        stream=f"s{number // 7}",
        position=number % 7,
        stream_length=7,
        kind=str(random.choice(["fact", "search"])),
        ending=Ending.FAILED if failed else Ending(str(random.choice(["done", "cut"]))),
        error="ToolError: gone" if failed else None,
        answer=None if random.random() < 0.3 else "Yes",
        origin=None if random.random() < 0.3 else Origin(str(random.choice(list(Origin)))),
        correct=bool(random.random() < 0.4),
        graded=None if random.random() < 0.5 else int(random.integers(-500, 1000)),
        receipts=tuple(receipts),
        reads=tuple(use(int(writer)) for writer in random.integers(-1, 7, random.integers(0, 3))),
        writes=tuple(use(number % 7) for _ in range(random.integers(0, 3))),
        remarks=tuple(random.choice(["bad_query", "refused", "tool_late"], random.integers(0, 3))),
        known=bool(random.random() < 0.5),
        memory_sizes={f"topic {i}": int(size) for i, size in enumerate(random.integers(0, 9, random.integers(0, 3)))},
    )


def test_a_row_says_what_the_session_says(tmp_path):
    random = np.random.default_rng(3)
    sessions = [some_session(random, number) for number in range(400)]
    path = tmp_path / "ppo.parquet"
    store.write_sessions(path, sessions)
    for row, one in zip(rows.read(path, iteration=None).to_pylist(), sessions, strict=True):
        why = cause(one)
        result = "failed" if one.ending is Ending.FAILED else "right" if why is None else CAUSES[why]
        assert (row["result"], row["asks"], row["known"]) == (result, one.asks, one.hindsight.known)
        assert row["reward"] == pytest.approx(one.own_reward)
        assert (row["paid"], row["price"]) == (pytest.approx(one.paid / 1000), 0.3)
        assert row["memory"] == sum(one.hindsight.memory_sizes.values())
        assert (row["reads"], row["writes"]) == (len(one.reads), len(one.writes))
        assert row["writers"] == [use.writer for use in one.reads]
        assert row["advice"] == "\n".join(receipt.advice for receipt in one.receipts)
        assert (row["answer"], row["error"], row["credit"], row["iteration"]) == (one.answer, one.error, None, None)
        assert all(word.lower() in row["text"] for word in (one.stream, one.kind, one.answer or "", *one.remarks))


def test_a_session_of_several_segments_is_one_row(make_run, tokenizer):
    run = make_run("r")
    whole = asking(tokenizer)
    anew = turn(tokenizer, [tokenizer.bos_id, *tokenizer.encode("anew")], Function.SUBMIT_ANSWER, ask=0.9)
    apart = changed(whole, turns=(whole.turns[0], anew))
    keep(run, 1, whole, changed(apart, position=1), reading(tokenizer, 0, position=2), credit=0.25)
    table = rows.read(run.segment_file(1), iteration=1)
    assert table["position"].to_pylist() == [0, 1, 2]
    assert table["credit"].to_pylist() == [0.25, 0.5, 0.25]  # the sum over its segments
    assert table["ask_probability"].to_pylist() == pytest.approx([0.75, 0.9, 0.125])


def test_a_session_that_was_not_trained_on_has_no_credit(make_run, tokenizer):
    run = make_run("r")
    lost = changed(asking(tokenizer, position=1), ending=Ending.FAILED, error="ToolError: gone")
    keep(run, 1, asking(tokenizer), lost)
    assert rows.read(run.segment_file(1), iteration=1)["credit"].to_pylist() == [0.5, None]


def test_an_entry_belongs_to_the_last_session_at_its_place_before_the_reader(make_run, tokenizer):
    run = make_run("r")
    keep(run, 1, asking(tokenizer))
    keep(run, 2, reading(tokenizer, 0, position=1))
    keep(run, 3, asking(tokenizer))  # the same stream once more, with an empty memory
    keep(run, 4, reading(tokenizer, 0, position=1), reading(tokenizer, NO_WRITER, position=2))
    opened = Runs([run.path]).open("r", "training")
    assert (dict(opened.links.writers), dict(opened.links.readers)) == ({1: [0], 3: [2]}, {0: [1], 2: [3]})


def test_a_file_that_changes_is_read_again_and_a_new_iteration_is_found(make_run, tokenizer):
    run = make_run("r")
    evaluations.keep(run, "ppo", [asking(tokenizer)])
    runs = Runs([run.path])
    assert runs.sources("r") == ["ppo"]
    first = runs.open("r", "ppo")
    assert runs.open("r", "ppo") is first
    evaluations.keep(run, "ppo", [asking(tokenizer), asking(tokenizer, position=1)])
    os.utime(run.evaluation_file("ppo"), ns=(1, 1))
    assert runs.open("r", "ppo").table.num_rows == 2
    keep(run, 1, asking(tokenizer))
    assert runs.open("r", "training").table.num_rows == 1
    keep(run, 2, asking(tokenizer, position=1))
    assert runs.open("r", "training").table.num_rows == 2


def test_runs_of_one_name_are_told_apart(make_run):
    folders = [make_run("a", "first"), make_run("a", "second"), make_run("b", "second")]
    assert Runs([folders[0].path, folders[1].path.parent]).names == ["first/a", "second/a", "b"]
    assert Runs([folders[0].path, folders[0].path]).names == ["a"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be the folder of a run or of a sweep"):
        Runs([tmp_path])


def test_a_run_or_source_that_is_not_there_is_refused(make_run, tokenizer):
    run = make_run("r")
    evaluations.keep(run, "ppo", [asking(tokenizer)])
    runs = Runs([run.path])
    for name, source in (("x", "ppo"), ("r", "sft"), ("r", "training"), ("../r", "ppo"), ("r", "../evaluation/ppo")):
        with pytest.raises(MissingError):
            runs.open(name, source)
    with pytest.raises(MissingError, match="has 1 sessions, but none is x:0"):
        runs.open("r", "ppo").row("x:0")


def test_filters_are_combined_and_a_sort_keeps_the_order_of_equals(tmp_path):
    random = np.random.default_rng(5)
    sessions = [some_session(random, number) for number in range(300)]
    path = tmp_path / "ppo.parquet"
    store.write_sessions(path, sessions)
    table = rows.read(path, iteration=None)
    kept = query.find(
        table, query.parse({"wrong": "1", "known": "1", "kind": "fact", "sort": "asks", "descending": "1"})
    )
    wanted = [
        (-one.asks, number)
        for number, one in enumerate(sessions)
        if one.ending is not Ending.FAILED and not one.correct and one.hindsight.known and one.kind == "fact"
    ]
    assert kept.tolist() == [number for _, number in sorted(wanted)]
    found = query.summarize(table, kept)
    assert found.reward == pytest.approx(np.mean([sessions[number].own_reward for number in kept]))
    assert found.asked == pytest.approx(np.mean([sessions[number].asks > 0 for number in kept]))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"wrong": "yes"}, "wrong: 1 or 0, found yes"),
        ({"iteration": "-1"}, "iteration: a whole number"),
        ({"offset": "²"}, "offset: a whole number"),
        ({"limit": "5000"}, "limit: from 1 to 1000, found 5000"),
        ({"sort": "text"}, "sort: one of"),
        ({"sort": "nothing"}, "sort: one of"),
        ({"parted": "1"}, "parted: needs another policy"),
    ],
)
def test_a_parameter_out_of_form_is_refused(params, said):
    table = pa.table({name: pa.array([], kind) for name, kind in rows.COLUMNS.items()})
    with pytest.raises(ConfigError, match=f"^{said}"):
        query.find(table, query.parse(params))


@pytest.mark.parametrize("text", ["a lamp", " two  spaces ", "Zürich 日本語 🙂 ok", "🙂", ""])
def test_the_pieces_of_tokens_are_the_text(tokenizer, text):
    ids = tokenizer.encode(text)
    found = list(pieces(ids, tokenizer))
    assert len(found) == len(ids)
    assert "".join(found) == text == tokenizer.decode(ids)


def test_bytes_that_are_no_text_end_a_part(tokenizer):
    ids = [*tokenizer.encode("a"), *tokenizer.encode("🙂")[:2]]
    assert "".join(pieces(ids, tokenizer)) == tokenizer.decode(ids)


def test_one_session_of_a_file_is_read_alone(make_run, tokenizer):
    run = make_run("r")
    keep(run, 1, asking(tokenizer), asking(tokenizer, position=1), reading(tokenizer, 0, position=2))
    found = store.read(run, 1, store.Chosen(stream=STREAM, positions={0, 2}))
    assert [one.session.position for one in found] == [0, 2]
    assert store.read(run, 1, store.Chosen(stream="x", positions={0})) == []
    assert pq.read_metadata(run.segment_file(1)).num_rows == 3
