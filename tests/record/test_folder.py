"""The folder classes list what a run stores, and no other module names its files."""

import ast
from pathlib import Path

import pytest

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.record.folder import CheckpointFolder, RunFolder, SweepFolder
from agile_ray.types import RunState

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for package in ("agile_ray", "rollout", "learner", "launch") for path in (ROOT / package).rglob("*.py")
)
NAMES = {
    *("config.yaml", "run.json", "history.jsonl", "abandoned.jsonl", "report.json", "report.html", "replay.json"),
    *("sweep.json", "table.json", "state.json", ".lock", ".first"),
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_names_a_file_of_a_run(path):
    if path == ROOT / "agile_ray" / "record" / "folder.py":
        return
    texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert not texts & NAMES


def test_a_run_folder_is_at_the_path_that_its_config_names():
    config = RunConfig(run=Run(name="r", folder=Path("runs")), model=Model(path=Path("m")), env=Env(name="shop"))
    run = RunFolder.of(config)
    assert (str(run), run.name) == ("runs/r", "r")
    assert run.repriced(500) == Path("runs/r/reprice-0.5.json")


def test_stored_iterations_evaluations_and_journals_are_listed_in_order(tmp_path):
    run = RunFolder(tmp_path)
    assert (run.stored_iterations(), run.evaluated_entries(), run.journals()) == ([], [], {})
    for path in (*map(run.segment_file, (10, 2)), *map(run.evaluation_file, ("sft", "ppo")), run.journal(3, "0.2.ab")):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        path.with_name(f".{path.name}.dead.aside").touch()
    assert run.stored_iterations() == [2, 10]
    assert run.evaluated_entries() == ["ppo", "sft"]
    assert run.journals() == run.journals("0.2.ab") == {run.journal(3, "0.2.ab"): 3}
    assert run.journals("0.1.ab") == {}


@pytest.mark.parametrize("copy", ["{} (1)", "{} copy", "{}.bak", "._{}", "{}~", "old-{}"])
def test_copies_that_file_managers_make_are_passed_over(tmp_path, copy):
    run, state = RunFolder(tmp_path), RunState(imitation_steps=3, iteration=123_456, version=7)
    checkpoint, entry = run.checkpoint(state), "sft_validation_sampled"
    for path in (run.segment_file(123_456), run.evaluation_file(entry), run.measured_file(entry)):
        stem, suffix = path.name.split(".", 1)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        (path.parent / f"{copy.format(stem)}.{suffix}").touch()
    for path in (checkpoint.path, checkpoint.path.with_name(copy.format(checkpoint.path.name))):
        CheckpointFolder(path).learners.mkdir(parents=True)
        CheckpointFolder(path).state.touch()
    assert run.stored_iterations() == [123_456]
    assert (run.evaluated_entries(), run.begun_entries()) == ([entry], [entry])
    assert run.complete_checkpoints() == [checkpoint]


def test_a_checkpoint_without_its_state_is_not_listed(tmp_path):
    run = RunFolder(tmp_path)
    imitated, trained = (RunState(imitation_steps=3, iteration=iteration, version=iteration) for iteration in (0, 1))
    for state in (imitated, trained):
        run.checkpoint(state).learners.mkdir(parents=True)
    run.checkpoint(trained).state.touch()
    run.best_checkpoint.symlink_to(run.checkpoint(trained).path.name)
    assert run.complete_checkpoints() == [run.checkpoint(trained)]


def test_a_sweep_lists_its_runs(tmp_path):
    sweep = SweepFolder(tmp_path)
    for name in ("b", "a"):
        sweep.run(name).path.mkdir()
        sweep.run(name).config.touch()
    sweep.run("b").report.touch()
    assert [run.name for run in sweep.runs()] == ["a", "b"]
    assert sweep.finished_runs() == [sweep.run("b")]
