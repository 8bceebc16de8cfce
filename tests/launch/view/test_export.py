"""`agile-ray export`: what other programs read of a run."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from agile_ray.record import evaluations
from agile_ray.types import Ending
from launch.view.rows import COLUMNS
from tests.conftest import one_line
from tests.fakes.played import played
from tests.fakes.worlds import changed
from tests.launch.test_show import STREAM, asking, keep, reading
from tests.launch.view.conftest import ask

DOCS = Path(__file__).resolve().parents[3] / "docs" / "report.md"


@pytest.fixture
def stored(run, tokenizer):
    """A run with an evaluation of two policies and an iteration, and the folder to export to."""
    lost = changed(asking(tokenizer, position=3), ending=Ending.FAILED, error="ToolError: gone")
    sessions = [
        asking(tokenizer),
        reading(tokenizer, 0, position=1),
        reading(tokenizer, 0, position=2, correct=False),
        lost,
    ]
    evaluations.keep(run, "ppo", sessions)
    evaluations.keep(run, "oracle", played("oracle"))
    keep(run, 7, *sessions[:2])
    return run


def export(call, run, form, *options):
    folder = run.path.parent / "exported"
    code, out, err = call("export", run.path, "--to", form, "--output", folder, *options)
    assert (code, err) == (0, "")
    return folder, [Path(line).name for line in out.splitlines()]


def test_parquet_has_a_flat_row_for_every_session_of_every_source(call, stored):
    folder, files = export(call, stored, "parquet")
    assert files == ["sessions.parquet"]
    table = pq.read_table(folder / "sessions.parquet")
    assert [name for name in table.column_names if name in COLUMNS] == [name for name in COLUMNS if name != "text"]
    found = [(row["run"], row["source"], row["iteration"], row["position"], row["served"]) for row in table.to_pylist()]
    assert found[:4] == [
        ("r", "ppo", None, 0, 1),
        ("r", "ppo", None, 1, 0),
        ("r", "ppo", None, 2, 0),
        ("r", "ppo", None, 3, 0),
    ]
    assert found[8:] == [("r", "training", 7, 0, 1), ("r", "training", 7, 1, 0)]
    assert [row[1] for row in found[4:8]] == ["oracle"] * 4


def test_jsonl_has_what_the_viewer_answers_without_single_tokens(call, stored):
    folder, files = export(call, stored, "jsonl", "--source", "training")
    assert files == ["training.jsonl"]
    lines = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    for line in lines:
        wanted = ask(stored.path, "session", source="training", key=line["row"]["key"])["session"]
        for part in wanted["parts"]:
            del part["tokens"]
        assert line == wanted
    assert [part["text"] for part in lines[0]["parts"]][:2] == ["[GetQuestion]", "how bright?"]
    assert [reader["row"]["key"] for reader in lines[0]["readers"]] == [f"{STREAM}:1:7"]


def test_a_log_for_inspect_has_a_sample_for_every_session(call, stored):
    folder, files = export(call, stored, "inspect")
    assert files == ["ppo.json", "oracle.json", "training.json"]
    log = json.loads((folder / "ppo.json").read_text())
    assert (log["version"], log["status"], log["eval"]["task"]) == (2, "success", "r/ppo")
    assert (log["results"]["total_samples"], log["results"]["completed_samples"]) == (4, 3)
    means = {one["name"]: next(iter(one["metrics"].values()))["value"] for one in log["results"]["scores"]}
    assert means == pytest.approx({"right": 2 / 3, "asked": 1 / 3, "reward": (0.7 + 1 + 0) / 3})
    first, _, wrong, lost = log["samples"]
    assert (first["id"], first["input"], first["scores"]["right"]["value"]) == (f"{STREAM}:0", "how bright?", "C")
    assert [message["role"] for message in first["messages"]] == ["assistant", "user", "assistant", "tool", "assistant"]
    assert (first["messages"][3]["function"], first["messages"][2]["metadata"]["ask_probability"]) == ("expert", 0.75)
    assert (wrong["scores"]["right"]["value"], wrong["scores"]["reward"]["value"]) == ("I", 0.0)
    assert ("scores" in lost, lost["error"]["message"]) == (False, "ToolError: gone")
    scripted = json.loads((folder / "oracle.json").read_text())["samples"][0]
    assert (scripted["input"], scripted["messages"]) == ("q0", [])  # no tokens are stored


def test_inspect_reads_its_log(call, stored):
    read_eval_log = pytest.importorskip("inspect_ai.log").read_eval_log
    folder, _ = export(call, stored, "inspect", "--source", "ppo")
    found = read_eval_log(str(folder / "ppo.json"))
    assert [sample.id for sample in found.samples] == [f"{STREAM}:{position}" for position in range(4)]
    assert found.samples[0].scores["reward"].value == 0.7


def documented_query():
    """The query of the documentation, and the words in it that are no SQL."""
    [query] = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names = set(re.findall(r"\b[a-z_]+\b", re.sub(r"'[^']*'|AS \w+", "", query)))
    return query, names - {"count", "round", "sum", "avg"}


def test_the_documented_query_names_columns_of_the_export(call, stored):
    folder, _ = export(call, stored, "parquet")
    _, names = documented_query()
    assert "served" in names
    assert names <= set(pq.read_schema(folder / "sessions.parquet").names)


def test_duckdb_answers_the_documented_query(call, stored, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    folder, _ = export(call, stored, "parquet")
    monkeypatch.chdir(folder.parent)
    query, _ = documented_query()
    assert duckdb.sql(query).fetchall() == [("fact", 2, 0.6, 0.5, 1)]  # the failed session asked too


def test_a_sweep_is_refused(call, make_run):
    make_run("a"), make_run("b")
    folder = make_run("c").path.parent
    code, _, err = call("export", folder, "--to", "parquet", "--output", folder / "x")
    assert code == 2
    assert "must be the folder of one run, found a sweep" in one_line(err)


@pytest.mark.parametrize("form", ["parquet", "mlflow"])
def test_an_output_that_can_not_be_a_folder_is_one_line(call, stored, form):
    taken = stored.path.parent / "taken"
    taken.write_text("a file")
    code, _, err = call("export", stored.path, "--to", form, "--output", taken / "below")
    assert (code, taken.read_text()) == (2, "a file")
    assert f"--output: {taken / 'below'} can't be a folder (Not a directory); choose another" in one_line(err)


def test_a_source_that_is_not_there_is_refused(call, stored):
    code, _, err = call(
        "export", stored.path, "--to", "jsonl", "--output", stored.path.parent / "x", "--source", "../ppo"
    )
    assert code == 2
    assert "r: stores ppo, oracle, training; found ../ppo" in one_line(err)
