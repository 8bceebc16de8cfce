"""A sweep in one process: engines, learners and imitation run once, and a second call has nothing to do."""

import json
import subprocess
from pathlib import Path

import pytest

from agile_ray.record import history
from agile_ray.record.history import Event
from tests.integration.conftest import BIN, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SWEEP = """
base: toy/three_prices
together: true
compare: {key: credit.mode, to: heuristic}
grid:
  credit.mode: [heuristic, fitted, linked]
"""
SMALL = (
    *("imitation.sessions=3200", "imitation.batch=32", "loop.lanes=4", "loop.iterations=2", "ppo.minibatches=2"),
    *("evaluate.sessions=48", "evaluate.validation_sessions=48", "rollout.kv_cache_gib=0.25"),
)


@pytest.mark.long
def test_runs_of_a_sweep_share_machines_and_imitation(tmp_path: Path):
    model = tmp_path / "model"
    make = ["model", "tiny", "--env", "recurring", "--hidden", "64", "--layers", "1", "--output", str(model)]
    subprocess.run([BIN / "agile-ray", *make], check=True, env=environment())
    (tmp_path / "modes.yaml").write_text(SWEEP)
    words = [BIN / "agile-ray", "sweep", tmp_path / "modes.yaml", f"model.path={model}", f"run.folder={tmp_path}"]
    done = subprocess.run([*words, *SMALL], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr

    runs = {mode: tmp_path / "modes" / f"mode-{mode}" for mode in ("heuristic", "fitted", "linked")}
    lines = {mode: history.read(run / "history.jsonl") for mode, run in runs.items()}
    imitated = {mode: sum(line.event is Event.IMITATION for line in found) for mode, found in lines.items()}
    assert imitated == {"heuristic": 100, "fitted": 0, "linked": 0}
    first = {mode: [line for line in found if line.event is Event.ITERATION] for mode, found in lines.items()}
    assert {mode: [line.version for line in found] for mode, found in first.items()} == dict.fromkeys(runs, [1, 2])
    for found in first.values():
        assert found[0].metrics["write_share"] > 0.05
    assert {mode for mode, found in first.items() if "credit_truncated" in found[0].metrics} == {"linked"}
    assert first["linked"][0].metrics["credit_spread"] > 0.0
    assert "credit_worth/item" in first["fitted"][0].metrics

    table = json.loads((tmp_path / "modes" / "sweep.json").read_text())
    assert table["failed"] == []
    assert {row["run"] for row in table["rows"]} == {run.name for run in runs.values()}
    assert [(one["group"], one["entry"]) for one in table["compared"]] == [
        (f"mode-{mode}", entry) for mode in ("fitted", "linked") for entry in ("ppo", "ppo_sampled")
    ]
    again = subprocess.run([*words, *SMALL], capture_output=True, text=True, env=environment())
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "modes" / "sweep.json").read_text()) == table
