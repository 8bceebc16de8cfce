"""The end of a training: the best checkpoint's evaluation is recorded under its own state."""

from types import SimpleNamespace

import numpy as np
import pytest

from agile_ray.config import RunConfig
from agile_ray.record import evaluations, history
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from agile_ray.record.recorder import RunRecorder
from agile_ray.types import RunState, ValidationScore
from agile_ray.weights import WeightsRef
from launch.run import final_comparison
from tests.fakes.checkpoint import export
from tests.fakes.played import played


class Learners:
    """Learners that are one number."""

    def __init__(self):
        self.number = 0

    def export(self, folder):
        export(folder)

    def save(self, folder):
        (folder / "number").write_text(str(self.number))

    def load(self, folder):
        self.number = int((folder / "number").read_text())

    def publish(self, version):
        return WeightsRef(version=version, buckets=(), blobs=(), probes=())

    def state(self):
        return b"0"

    def restore(self, state):
        pass


def at(iteration):
    return RunState(imitation_steps=9, iteration=iteration, version=iteration + 2)


@pytest.mark.parametrize(("scores", "best"), [({3: 0.9, 5: 0.4}, 3), ({3: 0.4, 5: 0.9}, 5)])
def test_the_best_checkpoint_is_recorded_under_its_own_state(tmp_path, monkeypatch, scores, best):
    config = RunConfig.model_validate(
        {"run": {"name": "r", "folder": tmp_path}, "model": {"path": "m"}, "env": {"name": "shop"}}
    )
    run, learners, loaded = RunFolder.of(config), Learners(), []
    checkpoints = FolderCheckpoints(
        run, keep=2, learners=learners, lanes=learners, credit=learners, resumed=lambda _: None, sft=run.sft
    )
    for iteration, score in scores.items():
        learners.number = iteration
        checkpoints.save(at(iteration), score=ValidationScore(iteration=iteration, total=score))
    said = []
    recorder = RunRecorder(run)
    recorder.resume(at(5))
    rollouts = SimpleNamespace(load=lambda ref: loaded.append(ref.version), evaluate=lambda **_: played("ppo"))
    parts = SimpleNamespace(
        config=config,
        folder=run,
        learners=learners,
        rollouts=rollouts,
        recorder=recorder,
        progress=SimpleNamespace(say=said.append),
        environment=None,
    )
    monkeypatch.setattr(final_comparison, "references", lambda *_, **__: {})
    monkeypatch.setattr(final_comparison, "files", SimpleNamespace(compose=lambda _: None, write=lambda *_: None))
    monkeypatch.setattr(final_comparison, "tables", SimpleNamespace(show=lambda *_: None))
    final_comparison.compare(parts, at(5))
    lines = history.read(run.history)
    measured = {line.name: (line.iteration, line.version) for line in lines if line.event is Event.EVALUATION}
    assert measured == {"ppo": (best, best + 2), "ppo_sampled": (best, best + 2)}
    assert (learners.number, loaded) == (best, [] if best == 5 else [best + 2])
    assert [line.iteration for line in lines if line.event is Event.CLOSE] == [5]
    [line] = said
    assert line.startswith(f"Iteration {best} was chosen: it has the highest validation total of 2 evaluated, 0.900")
    assert "because iterations 3, 5 keep no values" in line
    chosen = evaluations.kept_choice(run)
    assert (chosen.iteration, chosen.highest_total, chosen.unpaired) == (best, 0.9, (3, 5))
    assert np.isfinite(lines[0].metrics["total_score"])
