"""The table of a study over commits, from the folders of its finished runs."""

import json
from pathlib import Path

import pytest

from benchmarks.across_commits import Outcome, Study, Variant, _table

BEFORE = Variant(name="before", commit="a", seeds=(0, 1))
AFTER = Variant(name="after", commit="b", seeds=(1, 2), overrides=("imitation.answers=gold",))


def finish(folder: Path, name: str, *, total: float, closed: float) -> None:
    """Store the report of a finished run."""
    run = folder / "runs" / name
    run.mkdir(parents=True)
    report = {
        "ppo": {"total_score": total, "asked_share": 0.25},
        "ppo_sampled": {"total_score": total - 0.01},
        "references": {"oracle": {"total_score": 0.9}},
        "closed": closed,
        "progress": [
            {"of": "validation", "total_score": 0.7},
            {"of": "training", "total_score": 0.1},
            {"of": "validation", "total_score": 0.8},
        ],
        "seconds": {"collect": 60.0, "learn": 120.0},
    }
    (run / "report.json").write_text(json.dumps(report))


def test_all_variants_of_a_seed_come_before_the_next_seed():
    study = Study(config="quickstart", variants=(BEFORE, AFTER))
    assert study.runs() == [(BEFORE, 0), (BEFORE, 1), (AFTER, 1), (AFTER, 2)]


def test_the_table_has_a_line_for_each_variant_with_a_finished_run(tmp_path: Path):
    study = Study(config="quickstart", variants=(BEFORE, AFTER))
    finish(tmp_path, "before-0", total=0.6, closed=0.25)
    finish(tmp_path, "before-1", total=0.8, closed=0.75)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in _table(study, tmp_path).splitlines()]
    assert len({len(line) for line in lines}) == 1
    [titles, _, line] = lines
    found = dict(zip(titles, line, strict=True))
    assert (found["variant"], found["runs"]) == ("before", "2")
    assert found["total"] == "0.700 (0.600 0.800)"
    # Student's interval over seeds: 0.7 -+ 12.706 * 0.1
    assert line[titles.index("total") + 1] == "-0.571 to 1.971"
    assert (found["validation"], found["oracle"], found["minutes"]) == ("0.800", "0.900", "3.000")
    finish(tmp_path, "after-2", total=0.7, closed=0.5)
    assert _table(study, tmp_path).splitlines()[-1].split("|")[4].strip() == "–"  # one run has no interval


def test_a_run_that_has_not_finished_is_not_read(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Outcome.of(tmp_path)
