"""What the training loop may rely on: fakes and real parts pass the same checks.

`evaluate` of rollouts is not checked: `RecordedRollouts` refuses it. Real learners need Ray, so they are checked in
tests/integration/test_learner.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agile_ray.protocols import Checkpoints, Learners, Recorder, Rollouts
from agile_ray.types import Assigned, Demonstration, RunState, Session, TrainingRow, Update, ValidationScore
from agile_ray.weights import WeightsRef

NOTHING = RunState(imitation_steps=0, iteration=0, version=0)
"""The state of a run that has just begun."""


def check_rollouts(build: Callable[[], Rollouts], *, folder: Path) -> None:
    """Sessions come in stream order, and a restored object collects what the saved one would have collected next.

    Args:
        build: returns an object that has collected nothing and can collect twice.
        folder: existing and empty.
    """
    first, second = build(), build()
    for rollouts in (first, second):
        rollouts.load(WeightsRef(version=0, buckets=(), blobs=(), probes=()))
    check_order(first.collect())
    first.save(folder, earlier=None)
    second.restore(folder)
    assert keys(second.collect()) == keys(first.collect())


def check_order(sessions: Sequence[Session]) -> None:
    """Positions rise by one within a stream; no session is there twice."""
    assert sessions
    last: dict[str, int] = {}
    for session in sessions:
        assert session.position == last.get(session.stream, session.position - 1) + 1
        last[session.stream] = session.position


def keys(sessions: Sequence[Session]) -> list[tuple[str, int]]:
    """Which sessions these are."""
    return [(session.stream, session.position) for session in sessions]


def check_learners(learners: Learners, rows: Sequence[TrainingRow]) -> None:
    """Every segment is scored at each of its action tokens, and weights are published as the given version.

    Args:
        learners: with a reference policy.
        rows: two or more segments that these learners have scored.
    """
    segments = [row.segment for row in rows]
    scores, prefix_scores = learners.score(segments, segments[:1])
    assert len(prefix_scores) == 1
    for segment, found in zip(segments, scores, strict=True):
        for name in type(found).__slots__:
            assert getattr(found, name).shape == (segment.actions,)
    assert learners.score(segments, [])[1] == []
    demonstrations = [
        Demonstration(segment=row.segment, returns=row.scores.own_values, wrote=row.wrote) for row in rows
    ]
    assert isinstance(learners.imitate(demonstrations, step=0, steps=1), Update)
    assert isinstance(learners.learn(rows, seed=0, progress=0.0), Update)
    assert learners.publish(7).version == 7


def check_checkpoints(checkpoints: Checkpoints) -> None:
    """A run without checkpoints restores the beginning, any other the state that was saved last.

    Args:
        checkpoints: of a run that has just begun.
    """
    assert checkpoints.restore() == NOTHING
    imitated = NOTHING.imitated()
    for _ in range(2):  # the loop may save a state twice
        checkpoints.save(imitated, score=None)
        assert checkpoints.restore() == imitated
    best, latest = imitated.next(), imitated.next().next()
    checkpoints.save(best, score=ValidationScore(iteration=best.iteration, total=0.9))
    worse = ValidationScore(iteration=latest.iteration, total=0.1)
    checkpoints.save(latest, score=worse)  # the best is kept, but a run resumes from the latest
    assert checkpoints.restore() == latest


def check_recorder(recorder: Recorder, *, sessions: Sequence[Session], rows: list[TrainingRow]) -> None:
    """All that the loop records is accepted, and an error within a timed phase reaches the loop.

    Args:
        recorder: of a run that has just begun.
        sessions: of one iteration.
        rows: what was trained on in it.
    """
    update = Update(tokens=10, padding=0.0, seconds=1.0, metrics={})
    state = NOTHING.imitated()
    with recorder.timed("imitate"):
        recorder.imitation(state, update)
    with pytest.raises(ValueError, match="engine lost"), recorder.timed("collect"):
        raise ValueError("engine lost")
    state = state.next()
    recorder.iteration(state, sessions=sessions, assigned=Assigned(rows=rows, metrics={}), update=update)
    recorder.evaluation(state, "validation", sessions)
