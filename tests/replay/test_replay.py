"""`agile-ray replay`: the recording, the comparison, and refused arguments. The learners are fakes."""

import json
from dataclasses import replace

import pytest

from agile_ray import loop
from agile_ray.config import RunConfig
from agile_ray.credit.assign import CreditAssigner
from agile_ray.errors import ConfigError, ContractError
from agile_ray.record import provenance, store
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.replay.comparison import TOLERANCE, compare
from agile_ray.replay.rollouts import RecordedRollouts
from agile_ray.types import Update
from launch.report.replay_table import conclude
from tests.conftest import one_line
from tests.fakes.older import age
from tests.fakes.parts import START, FakeCheckpoints, FakeLearners, FakeRollouts
from tests.fakes.stored import FAILED, ONE, REWRITTEN, rows

MEASURED = {"loss": 0.5, "policy_loss": -0.02, "value_loss": 0.25}


class OtherStreams(FakeRollouts):
    """Plays other streams in each iteration."""

    played = 0

    def collect(self):
        self.played += 1
        return [replace(one, stream=f"{self.played}/{lane}") for lane, one in enumerate(super().collect())]


def learners(**measured):
    return FakeLearners(update=Update(tokens=1, padding=0.0, seconds=1.0, metrics=MEASURED | measured))


def settings(folder, name):
    return RunConfig.model_validate(
        {
            "run": {"name": name, "folder": folder},
            "model": {"path": "m"},
            "env": {"name": "shop"},
            "loop": {"iterations": 3, "evaluate_every": None},
        }
    )


def train(config, rollouts, learners, *, stopping=lambda: False):
    provenance.write(config)
    recorder = RunRecorder(RunFolder.of(config))
    state = loop.train(
        config,
        START,
        rollouts=rollouts,
        learners=learners,
        credit=CreditAssigner(config.credit),
        checkpoints=FakeCheckpoints(),
        recorder=recorder,
        stopping=stopping,
    )
    recorder.close()
    return state


@pytest.fixture
def run(tmp_path):
    """The folder of a run of three iterations."""
    config = settings(tmp_path, "small")
    train(config, OtherStreams(), learners())
    return config.run_folder


def replayed(run, **measured):
    config, rollouts = settings(run.parent, "small-replay"), RecordedRollouts(RunFolder(run))
    return config, train(config, rollouts, learners(**measured), stopping=lambda: rollouts.exhausted)


def test_a_replay_stores_the_same_bytes_as_the_run(run):
    config, state = replayed(run)
    assert state.iteration == 3
    for iteration in (1, 2, 3):
        mine, its = (RunFolder(folder).segment_file(iteration) for folder in (config.run_folder, run))
        assert mine.read_bytes() == its.read_bytes()


def test_a_restored_recording_continues_after_the_collected_iterations(run, tmp_path):
    first, second = RecordedRollouts(RunFolder(run)), RecordedRollouts(RunFolder(run))
    first.collect()
    first.save(tmp_path, earlier=None)
    second.restore(tmp_path)
    assert [one.stream for one in second.collect()] == ["2/0", "2/1"]


def test_a_recording_ends_before_the_first_iteration_that_is_not_stored(run):
    RunFolder(run).segment_file(2).unlink()
    assert replayed(run)[1].iteration == 1
    rollouts = RecordedRollouts(RunFolder(run))
    rollouts.collect()
    with pytest.raises(ConfigError, match="iteration-00002"):
        rollouts.collect()


def test_a_recording_refuses_to_play_an_evaluation(run):
    with pytest.raises(ContractError, match="evaluate_every must be none"):
        RecordedRollouts(RunFolder(run)).evaluate(split="validation", sessions=8, greedy=True)


def compared(folder, **losses):
    return compare(1, run=RunFolder(folder / "run"), replay=RunFolder(folder / "replay"), **losses)


def test_a_replay_of_a_run_that_an_older_version_stored_repeats_it(run):
    for iteration in (1, 2, 3):
        age(RunFolder(run).segment_file(iteration))
    config, state = replayed(run)
    assert state.iteration == 3
    for iteration in (1, 2, 3):
        found = compare(
            iteration, run=RunFolder(run), replay=RunFolder.of(config), run_losses=MEASURED, replay_losses=MEASURED
        )
        assert (found.differing, found.credit_differing, found.same) == ({}, 0, True)


def test_a_comparison_leaves_out_what_the_learner_computed_for_each_token(tmp_path):
    own = [row.scores.logprobs for row in rows(ONE)]
    store.write(RunFolder(tmp_path / "run"), 1, [ONE], rows(ONE), own)
    store.write(RunFolder(tmp_path / "replay"), 1, [ONE], rows(ONE), [one + 1 for one in own])
    assert compared(tmp_path, run_losses={}, replay_losses={}).same
    other = replace(ONE, turns=tuple(replace(turn, ask_probability=0.5) for turn in ONE.turns))
    store.write(RunFolder(tmp_path / "replay"), 1, [other], rows(other), own)
    assert compared(tmp_path, run_losses={}, replay_losses={}).differing == {"ask_probabilities": 1}


def test_a_comparison_counts_segments_that_differ_and_measures_credit(tmp_path):
    changed = replace(ONE, answer="red")
    store.write(RunFolder(tmp_path / "run"), 1, [ONE, REWRITTEN, FAILED], rows(ONE, REWRITTEN, credit=0.0625))
    store.write(RunFolder(tmp_path / "replay"), 1, [changed, REWRITTEN, FAILED], rows(changed, REWRITTEN, credit=0.25))
    found = compared(tmp_path, run_losses=MEASURED, replay_losses={})
    assert (found.segments, found.differing) == (4, {"answer": 1})
    assert (found.credit_differing, found.credit_distance) == (2, 0.1875)  # only last segments have credit
    assert (found.losses, found.same) == ({}, False)


def test_a_comparison_finds_segments_that_one_side_lacks(tmp_path):
    store.write(RunFolder(tmp_path / "run"), 1, [ONE, REWRITTEN], rows(ONE, REWRITTEN))
    store.write(RunFolder(tmp_path / "replay"), 1, [ONE], rows(ONE))
    found = compared(tmp_path, run_losses={}, replay_losses={})
    assert found.differing["token_ids"] == found.credit_differing == 2
    assert not found.same


@pytest.mark.parametrize(("share", "same"), [(0.0, True), (0.5 * TOLERANCE, True), (2 * TOLERANCE, False)])
def test_a_loss_may_differ_by_a_small_share_of_itself(tmp_path, share, same):
    for name in ("run", "replay"):
        store.write(RunFolder(tmp_path / name), 1, [ONE], rows(ONE))
    other = MEASURED | {"policy_loss": MEASURED["policy_loss"] * (1 + share)}
    found = compared(tmp_path, run_losses=MEASURED, replay_losses=other)
    assert found.losses["policy_loss"].distance == pytest.approx(share, rel=0.01)
    assert found.same is same


def test_a_replay_that_repeats_its_run_says_so(run, capsys):
    config, _ = replayed(run)
    conclude(RunFolder(run), RunFolder.of(config), [])
    assert "3 iterations repeat" in capsys.readouterr().out
    record = json.loads(RunFolder.of(config).replay.read_text())
    assert record["run"] == str(run)
    assert [one["iteration"] for one in record["iterations"]] == [1, 2, 3]


def test_a_replay_that_differs_is_an_error_unless_it_is_an_experiment(run, capsys):
    config, _ = replayed(run, value_loss=0.5)
    with pytest.raises(ContractError, match="3 of 3 iterations differ .* the first is 1"):
        conclude(RunFolder(run), RunFolder.of(config), [])
    conclude(RunFolder(run), RunFolder.of(config), ["ppo.learning_rate=1e-3"])
    assert "3 of 3 iterations differ" in capsys.readouterr().out


def imitated(run):
    """The run, with a stand-in for its SFT policy."""
    state = RunFolder(run).sft.state
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    return run


def refused(call, *words):
    code, _, err = call("replay", *words)
    assert code == 2
    return one_line(err)


def test_a_folder_that_is_not_a_run_is_refused(call, tmp_path):
    assert "config.yaml, found none" in refused(call, tmp_path)


def test_a_run_without_its_sft_policy_is_refused(call, run):
    assert "sft: a replay begins after imitation" in refused(call, run)


def test_a_run_without_its_first_iteration_is_refused(call, run):
    RunFolder(run).segment_file(1).unlink()
    assert "iteration-00001.parquet: no such file" in refused(call, imitated(run))


def test_a_setting_that_replay_makes_itself_cannot_be_overridden(call, run):
    assert "override run.name=x: a replay sets run.name" in refused(call, imitated(run), "run.name=x")


@pytest.mark.parametrize("name", ["small", "other"])
def test_a_replay_never_writes_into_another_run(call, run, name):
    (run.parent / "other").mkdir(exist_ok=True)
    assert "found no replay; choose another --output" in refused(call, imitated(run), "--output", name)


def test_a_replay_of_another_run_is_left_alone(call, run):
    (run.parent / "other").mkdir()
    (run.parent / "other" / "replay.json").write_text(json.dumps({"run": "/elsewhere"}))
    said = refused(call, imitated(run), "--output", "other")
    assert "found a replay of /elsewhere" in said


def test_a_refused_replay_has_written_nothing(call, run):
    assert "model.path" in refused(call, imitated(run))  # its policy is no whole model
    assert not (run.parent / "small-replay").exists()
