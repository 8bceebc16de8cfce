import contextlib
import json
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agile_ray.config import Env, Loop, Model, Run, RunConfig
from agile_ray.errors import ConfigError, ContractError
from agile_ray.record import history, metrics, provenance, store
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Dropped, Event
from agile_ray.record.recorder import Rollback, RunRecorder
from agile_ray.segments import cut
from agile_ray.types import Assigned, Ending, Receipt, RunState, TokenScores, TrainingRow, Turn, Update
from tests.fakes.lineage import check_lineage
from tests.fakes.worlds import SESSION, changed

FRESH = RunState(imitation_steps=0, iteration=0, version=0)
UPDATE = Update(tokens=900, padding=0.1, seconds=3.0, metrics={"policy_loss": 0.5})


class Clock:
    """A clock that tests set."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def session(position, *, stream="train/0", right=True, asks=0, ending=Ending.DONE, prompt=3, remarks=()):
    turn = Turn(
        prompt_ids=np.arange(prompt, dtype=np.int32),
        completion_ids=np.array([7, 8], np.int32),
        logprobs=np.zeros(2, np.float32),
        versions=np.zeros(2, np.int32),
        rewards=np.zeros(2, np.float32),
    )
    return changed(
        SESSION,
        stream=stream,
        position=position,
        stream_length=9,
        question_id=f"q{position}",
        turns=(turn,),
        ending=ending,
        error="ExpertError: late" if ending is Ending.FAILED else None,
        answer="yes",
        correct=right,
        receipts=tuple(
            Receipt(key=f"{n}", price=300, source="gold", latency_s=0.0, advice="yes", answer="yes")
            for n in range(asks)
        ),
        remarks=remarks,
    )


def rows(sessions):
    return [
        TrainingRow(
            segment=segment,
            scores=TokenScores(
                **dict.fromkeys(TokenScores.__slots__, np.zeros(segment.actions, np.float32)),
            ),
            credit=0.1,
            credit_baseline=0.0,
            decided_after=segment.actions,
            wrote=bool(played.writes),
        )
        for played in sessions
        for segment in cut(played)
    ]


def play(recorder, state, *, iterations, clock):
    """Iterations of two sessions each, which collect for 2 s and publish for 1 s."""
    for _ in range(iterations):
        with recorder.timed("collect"):
            clock.now += 2
        with recorder.timed("publish"):
            clock.now += 1
        state = state.next()
        sessions = [session(2 * state.iteration), session(2 * state.iteration + 1, asks=1)]
        recorder.iteration(
            state, sessions=sessions, assigned=Assigned(rows=rows(sessions), metrics={"credit": 0.1}), update=UPDATE
        )
    return state


def test_an_iteration_leaves_one_line_with_its_metrics(tmp_path):
    clock, shown = Clock(), []
    recorder = RunRecorder(RunFolder(tmp_path), console=shown.append, clock=clock)
    play(recorder, FRESH, iterations=1, clock=clock)
    recorder.close()
    [line] = history.read(RunFolder(tmp_path).history)
    assert (line.event, line.iteration, line.version) == (Event.ITERATION, 1, 1)
    assert line.metrics["total_score"] == 0.85
    assert (line.metrics["asked_share"], line.metrics["credit"], line.metrics["policy_loss"]) == (0.5, 0.1, 0.5)
    assert (line.metrics["tokens_per_session"], line.metrics["actions_per_session"]) == (5, 2)
    assert (line.metrics["sessions_per_second"], line.metrics["sync_seconds"]) == (1.0, 1.0)
    assert (line.metrics["tokens_per_second"], line.metrics["processed_tokens"]) == (300, 1000)
    assert line.seconds == {"collect": 2, "publish": 1}
    assert line.counts == {"ending/done": 2}
    assert shown[0]["iteration"] == 1
    assert shown[0]["accuracy"] == 1.0


def test_the_advantages_of_an_update_are_stored_with_the_segments_of_its_rows(tmp_path):
    recorder, played = RunRecorder(RunFolder(tmp_path)), [session(0), session(1)]
    advantages = (np.array([0.5, -1.5], np.float32), np.array([2.0, 0.25], np.float32))
    recorder.iteration(
        FRESH.next(),
        sessions=played,
        assigned=Assigned(rows=rows(played), metrics={"credit": 0.1}),
        update=replace(UPDATE, advantages=advantages),
    )
    recorder.close()
    assert [one.advantages.tolist() for one in store.read(RunFolder(tmp_path), 1)] == [[0.5, -1.5], [2.0, 0.25]]


def test_dropped_sessions_are_counted_by_reason_length_and_asking(tmp_path):
    shown = []
    recorder = RunRecorder(RunFolder(tmp_path), console=shown.append)
    kept = session(0)
    dropped = [
        session(1, ending=Ending.FAILED, asks=1, prompt=7),
        session(2, ending=Ending.FAILED, asks=1, prompt=14),
        session(3, ending=Ending.FAILED, prompt=3),
        session(4, ending=Ending.CUT, remarks=("refused", "refused")),
    ]
    recorder.iteration(
        FRESH.next(),
        sessions=[kept, *dropped],
        assigned=Assigned(rows=rows([kept]), metrics={"credit": 0.1}),
        update=UPDATE,
    )
    recorder.close()
    [line] = history.read(RunFolder(tmp_path).history)
    assert line.dropped == (
        Dropped(reason="failed", asked=False, tokens_up_to=8, sessions=1),
        Dropped(reason="failed", asked=True, tokens_up_to=16, sessions=2),
        Dropped(reason="no_row", asked=False, tokens_up_to=8, sessions=1),
    )
    endings = {"ending/cut": 1, "ending/done": 1, "ending/failed": 3}
    reason = dropped[0].error
    assert line.counts == {**endings, "remark/refused": 2, f"failed/{reason}": 3}
    assert shown[0]["reason"] == reason
    assert len(store.read(RunFolder(tmp_path), 1)) == 5


def test_a_phase_that_raises_is_timed_and_close_writes_the_remaining_time(tmp_path):
    clock = Clock()
    recorder = RunRecorder(RunFolder(tmp_path), clock=clock)
    with contextlib.suppress(ValueError), recorder.timed("collect"):
        clock.now += 4
        raise ValueError("x")
    recorder.close()
    recorder.close()
    [line] = history.read(RunFolder(tmp_path).history)
    assert (line.event, line.seconds) == (Event.CLOSE, {"collect": 4})


def test_resuming_discards_and_counts_the_lines_after_the_checkpoint(tmp_path):
    clock = Clock()
    first = RunRecorder(RunFolder(tmp_path), clock=clock)
    first.resume(FRESH)
    state = play(first, FRESH.imitated(), iterations=2, clock=clock)
    first.evaluation(state, "validation", [session(0)])
    play(first, state, iterations=2, clock=clock)
    first.close()

    second = RunRecorder(RunFolder(tmp_path), clock=clock)
    assert second.resume(state) == Rollback(lines=2, segments=4, seconds=6)
    play(second, state, iterations=1, clock=clock)
    second.close()
    lines = history.read(RunFolder(tmp_path).history)
    assert [(line.event, line.iteration) for line in lines] == [
        ("iteration", 1),
        ("iteration", 2),
        ("evaluation", 2),
        ("resume", 2),
        ("iteration", 3),
    ]
    assert lines[3].counts == {"discarded/lines": 2, "discarded/rows": 4}
    assert check_lineage(RunFolder(tmp_path)) == 6


def test_a_resumption_has_what_happened_to_the_fleet_before_it(tmp_path):
    run, clock, happened = RunFolder(tmp_path), Clock(), {"learner_restarts": 1, "replaced": 0}

    def fleet():
        found = dict(happened)
        happened.clear()
        return found

    first = RunRecorder(run, clock=clock)
    state = play(first, FRESH.imitated(), iterations=1, clock=clock)
    first.close()
    second = RunRecorder(run, clock=clock, fleet=fleet)
    second.resume(state)
    play(second, state, iterations=1, clock=clock)
    second.close()
    lines = history.read(run.history)
    assert [line.counts.get("fleet/learner_restarts") for line in lines] == [None, 1, None]
    assert "fleet/replaced" not in lines[1].counts


def test_resuming_within_imitation_discards_the_steps_that_are_repeated(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    state = FRESH
    for _ in range(3):
        state = state.imitated()
        recorder.imitation(state, Update(tokens=10, padding=0.0, seconds=1.0, metrics={"loss": 2.0}))
    assert recorder.resume(FRESH.imitated()).lines == 2
    recorder.close()
    lines = history.read(RunFolder(tmp_path).history)
    assert [line.event for line in lines] == [Event.IMITATION, Event.RESUME]


def test_resuming_in_a_new_folder_does_nothing(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    assert recorder.resume(FRESH) == Rollback(lines=0, segments=0, seconds=0)
    recorder.close()
    assert history.read(RunFolder(tmp_path).history) == []


def test_an_incomplete_last_line_is_left_out_and_an_unknown_line_is_refused(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    recorder.evaluation(FRESH, "validation", [session(0)])
    recorder.close()
    path = RunFolder(tmp_path).history
    path.write_bytes(path.read_bytes() + b'{"event": "iter')
    assert len(history.read(path)) == 1
    path.write_text('{"event": "party"}\n')
    with pytest.raises(
        ConfigError, match=r"history.jsonl:1: must be a history line, as this version writes it; found .*party"
    ):
        history.read(path)


def test_a_metric_without_a_definition_is_refused(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    with pytest.raises(ContractError, match="found fun, joy"):
        recorder.imitation(FRESH, Update(tokens=1, padding=0.0, seconds=1.0, metrics={"joy": 1.0, "fun": 2.0}))
    recorder.close()


def test_metrics_are_pooled_by_their_reductions():
    lines = [{"tokens": 3.0, "padding": 0.1, "accuracy": 0.2}, {"tokens": 4.0, "padding": 0.3, "accuracy": 0.9}]
    assert metrics.pool_metrics(lines) == {"tokens": 7.0, "padding": 0.2, "accuracy": 0.9}


def test_tensorboard_reads_the_scalars_and_ignores_discarded_ones(tmp_path):
    clock = Clock()
    first = RunRecorder(RunFolder(tmp_path), clock=clock)
    state = play(first, FRESH, iterations=1, clock=clock)
    play(first, state, iterations=2, clock=clock)
    first.close()
    time.sleep(1.0)  # TensorBoard orders files by the second in their names
    second = RunRecorder(RunFolder(tmp_path), clock=clock)
    second.resume(state)
    play(second, state, iterations=1, clock=clock)
    second.evaluation(state, "validation", [session(0)])
    second.close()
    events = EventAccumulator(str(RunFolder(tmp_path).ppo_events))
    events.Reload()
    assert [point.step for point in events.Scalars("iteration/total_score")] == [1, 2]
    assert events.Scalars("validation/total_score")[0].value == 1.0


def test_every_start_is_recorded_after_the_earlier_ones(tmp_path):
    config = RunConfig(run=Run(name="r", folder=tmp_path), model=Model(path=tmp_path), env=Env(name="shop"))
    provenance.write(config)
    provenance.write(config)
    first, second = provenance.read(RunFolder.of(config))
    assert first.config_hash == second.config_hash == config.digest
    assert first.versions["numpy"] == np.__version__
    assert first.machine.cores >= 1
    assert RunFolder.of(config).config.read_text() == config.yaml()


def test_git_state_tells_a_commit_from_changed_files_and_from_no_checkout(tmp_path):
    assert provenance.git_state(tmp_path) == provenance.Git(commit="unknown", dirty=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    clean = provenance.git_state(tmp_path)
    assert (len(clean.commit), clean.dirty) == (40, False)
    (tmp_path / "inside").mkdir()
    assert provenance.git_state(tmp_path / "inside").commit == "unknown"
    (tmp_path / "new").touch()
    assert provenance.git_state(tmp_path).dirty
    copy = tmp_path / "inside"
    provenance.mark_copy(tmp_path, copy)
    provenance.mark_copy(copy, copy)
    assert provenance.git_state(copy) == provenance.Git(commit=clean.commit, dirty=True)


def test_a_run_resumes_with_more_iterations_but_not_with_another_price(tmp_path):
    config = RunConfig(run=Run(name="r", folder=tmp_path), model=Model(path=tmp_path), env=Env(name="shop"))
    provenance.check_resumable(config)
    provenance.write(config)
    provenance.check_resumable(config.model_copy(update={"loop": Loop(iterations=99)}))
    other = config.model_copy(update={"env": Env(name="shop", advice_cost=0.5)})
    with pytest.raises(ConfigError, match=r"env.advice_cost was 0.3, is 0.5; give it another run.name"):
        provenance.check_resumable(other)


def test_history_lines_are_plain_json(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    recorder.evaluation(FRESH, "validation", [session(0)])
    recorder.close()
    [text] = RunFolder(tmp_path).history.read_text().splitlines()
    assert json.loads(text)["metrics"]["total_score"] == 1.0
