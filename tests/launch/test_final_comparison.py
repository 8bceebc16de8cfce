"""The end of a training: which weights are evaluated, under which state, and what is not played again."""

from types import SimpleNamespace

import numpy as np
import pytest

from agile_ray.config import RunConfig
from agile_ray.errors import StarvedError
from agile_ray.evaluation.plays import Part
from agile_ray.record import evaluations, history
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from agile_ray.record.recorder import RunRecorder
from agile_ray.types import Ending, RunState
from agile_ray.weights import WeightsRef
from launch.run import final_comparison
from tests.fakes.checkpoint import export
from tests.fakes.played import played
from tests.fakes.worlds import SESSION, changed


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


class Rollouts:
    """Rollouts that note what they play, and can be killed at one of the evaluations, after its first session."""

    def __init__(self, *, killed_at=0):
        self.loaded, self.evaluations, self.killed_at = [], [], killed_at

    def load(self, weights):
        self.loaded.append(weights.version)

    def evaluate(self, *, split, sessions, greedy, parts):
        self.evaluations.append((greedy, parts.sessions))
        if len(self.evaluations) == self.killed_at:
            parts.add(Part(index=0, sessions=tuple(played("ppo")[:1]), state=None))
            raise KeyboardInterrupt
        return played("ppo" if greedy else "ppo_sampled")


def parts_of(run, config, rollouts, *, state):
    """The parts of a training that its final comparison needs."""
    recorder = RunRecorder(run)
    recorder.resume(state)
    return SimpleNamespace(
        config=config,
        folder=run,
        learners=Learners(),
        rollouts=rollouts,
        recorder=recorder,
        progress=SimpleNamespace(say=lambda _: None),
        environment=None,
    )


@pytest.fixture
def references(monkeypatch):
    """The reference policies that were played, in order; they play nothing real, and no report is written."""
    asked = []

    def play(*_, entries, **__):
        asked.extend(entries)
        return {entry: played("oracle") for entry in entries}

    monkeypatch.setattr(final_comparison, "references", play)
    monkeypatch.setattr(final_comparison, "files", SimpleNamespace(compose=lambda _: None, write=lambda *_: None))
    monkeypatch.setattr(final_comparison, "tables", SimpleNamespace(show=lambda *_: None))
    return asked


def config_in(folder, **changes):
    raw = {"run": {"name": "r", "folder": folder}, "model": {"path": "m"}, "env": {"name": "shop"}}
    return RunConfig.model_validate(raw | changes)


@pytest.mark.parametrize(("scores", "best"), [({3: 0.9, 5: 0.4}, 3), ({3: 0.4, 5: 0.9}, 5)])
@pytest.mark.usefixtures("references")
def test_the_best_checkpoint_is_recorded_under_its_own_state(tmp_path, scores, best):
    config = config_in(tmp_path)
    run, learners, rollouts = RunFolder.of(config), Learners(), Rollouts()
    checkpoints = FolderCheckpoints(
        run, keep=2, learners=learners, lanes=learners, credit=learners, resumed=lambda _: None, sft=run.sft
    )
    for iteration, score in scores.items():
        learners.number = iteration
        checkpoints.save(at(iteration), score=score)
    parts = parts_of(run, config, rollouts, state=at(5))
    parts.learners = learners
    final_comparison.compare(parts, at(5))
    lines = history.read(run.history)
    measured = {line.name: (line.iteration, line.version) for line in lines if line.event is Event.EVALUATION}
    assert measured == {"ppo": (best, best + 2), "ppo_sampled": (best, best + 2)}
    assert (learners.number, rollouts.loaded) == (best, [] if best == 5 else [best + 2])
    assert [line.iteration for line in lines if line.event is Event.CLOSE] == [5]
    assert np.isfinite(lines[0].metrics["total_score"])


def test_a_comparison_that_was_stopped_plays_nothing_twice(tmp_path, references):
    config = config_in(tmp_path)
    run = RunFolder.of(config)
    with pytest.raises(KeyboardInterrupt):
        final_comparison.compare(parts_of(run, config, Rollouts(killed_at=2), state=at(5)), at(5))
    assert (evaluations.has(run, "ppo"), evaluations.has(run, "ppo_sampled"), references) == (True, False, [])
    again = Rollouts()
    final_comparison.compare(parts_of(run, config, again, state=at(5)), at(5))
    assert again.evaluations == [(False, 1)]
    assert sorted(references) == sorted(final_comparison.ENTRIES)
    assert not run.evaluation_parts("ppo_sampled").exists()
    references.clear()
    third = Rollouts()
    evaluations.discard(run, "oracle")
    final_comparison.compare(parts_of(run, config, third, state=at(5)), at(5))
    assert (third.evaluations, references) == ([], ["oracle"])
    lines = [line.name for line in history.read(run.history) if line.event is Event.EVALUATION]
    assert lines == ["ppo", "ppo_sampled"]


@pytest.mark.parametrize(
    ("state", "changes", "twice"),
    [
        (at(5), {}, False),
        (at(5), {"cluster": {"deadline_s": 9.0}}, False),
        (at(5), {"evaluate": {"sessions": 3}}, True),
        (at(9), {}, True),
    ],
)
@pytest.mark.usefixtures("references")
def test_only_the_same_weights_and_settings_are_not_played_again(tmp_path, state, changes, twice):
    config = config_in(tmp_path)
    run, first, second = RunFolder.of(config), Rollouts(killed_at=3), Rollouts()
    final_comparison.compare(parts_of(run, config, first, state=at(5)), at(5))
    final_comparison.compare(parts_of(run, config_in(tmp_path, **changes), second, state=state), state)
    assert second.evaluations == ([(True, 0), (False, 0)] if twice else [])


@pytest.mark.usefixtures("references")
def test_evaluations_of_weights_that_are_trained_again_are_discarded(tmp_path):
    config = config_in(tmp_path)
    run = RunFolder.of(config)
    final_comparison.evaluate_policy("sft", parts_of(run, config, Rollouts(), state=at(0)), at(0))
    final_comparison.compare(parts_of(run, config, Rollouts(), state=at(5)), at(5))
    rollouts = Rollouts()
    parts = parts_of(run, config, rollouts, state=at(3))  # iterations 4 and 5 are lost
    assert run.evaluated_entries() == ["sft", "sft_sampled"]
    final_comparison.compare(parts, at(5))
    assert rollouts.evaluations == [(True, 0), (False, 0)]


@pytest.mark.usefixtures("references")
def test_an_evaluation_of_which_nothing_can_be_scored_is_played_again(tmp_path):
    class Broken(Rollouts):
        def evaluate(self, *, parts, **rest):
            parts.add(Part(index=0, sessions=(failed,), state=None))
            return [failed]

    failed = changed(SESSION, ending=Ending.FAILED, error="expert: gone")
    config = config_in(tmp_path)
    run, rollouts = RunFolder.of(config), Rollouts()
    with pytest.raises(StarvedError, match="expert: gone"):
        final_comparison.compare(parts_of(run, config, Broken(), state=at(5)), at(5))
    final_comparison.compare(parts_of(run, config, rollouts, state=at(5)), at(5))
    assert rollouts.evaluations == [(True, 0), (False, 0)]
