"""`agile-ray data`, and what an evaluation says of rows that it leaves out."""

import json
from pathlib import Path

from tests.envs.test_medmcqa import folder
from tests.envs.test_productqa import PANS, tiny

__all__ = ("folder", "tiny")  # fixtures


def test_counts_stand_beside_the_published_ones(call, tiny: Path) -> None:
    (tiny / "test" / "pans").rename(tiny / "test" / "all_pans")
    (tiny / "test" / "all_pans" / "qa.jsonl").write_text("\n".join(json.dumps(row) for row in PANS[:1]))
    (tiny / "train" / "cups").rename(tiny / "test" / "pans")
    code, out, _ = call("data", "productqa", str(tiny))
    assert code == 2  # all_pans has no table here


def test_broken_rows_are_listed_and_end_with_1(call, tiny: Path) -> None:
    code, out, _ = call("data", "productqa", str(tiny))
    assert code == 0
    pans = next(line for line in out.splitlines() if "test/pans" in line)
    assert pans.split() == ["test/pans", "2", "2", "2", "6", "2", "0", "-"]
    file = tiny / "test" / "pans" / "qa.jsonl"
    file.write_text(f"{file.read_text()}{{}}\n")
    code, out, _ = call("data", "productqa", str(tiny))
    assert code == 1
    assert "1 broken rows, which env.skip_bad=true leaves out:" in out
    assert f"{file}:7: id: Field required" in out


def test_medmcqa_is_counted_and_what_is_published_said(call, folder: Path) -> None:
    code, out, _ = call("data", "medmcqa", str(folder))
    assert code == 0
    assert out.splitlines()[1].split() == ["train", "30", "10", "20", "15", "182,822", "questions"]


def test_an_environment_without_files_is_refused(call, tmp_path: Path) -> None:
    code, _, err = call("data", "shop", str(tmp_path))
    assert code == 2
    assert "one of productqa, medmcqa, hotpotqa" in err


def test_an_evaluation_exports_its_answers_and_counts_what_it_leaves_out(call, tmp_path: Path, folder: Path) -> None:
    file = folder / "test.jsonl"
    file.write_text(f"{file.read_text()}{{}}\n")
    words = ("evaluate", "medmcqa", "--policy", "never_ask", f"env.data={folder}", "memory.embedder=hashed")
    code, _, err = call(*words)
    assert code == 2
    assert "test.jsonl:7: id: Field required" in err.replace("\n", "")
    code, out, _ = call(*words, "env.skip_bad=true", "--predictions", str(tmp_path / "said"), "model.path=none")
    assert code == 0
    assert out.count("env.skip_bad: 1 broken rows are left out; the first: ") == 1
    rows = [json.loads(line) for line in (tmp_path / "said" / "test.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"q{number}" for number in range(40, 46)]


def test_predictions_of_a_drawn_environment_are_refused_before_it_plays(call, tmp_path: Path) -> None:
    code, _, err = call("evaluate", "quickstart", "--policy", "oracle", "--predictions", str(tmp_path))
    assert code == 2
    assert "only productqa, medmcqa and hotpotqa" in err.replace("\n", " ")
