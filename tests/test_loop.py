import asyncio
import contextlib

import numpy as np
import pytest

from agile_ray.config import RunConfig
from agile_ray.errors import StarvedError
from agile_ray.loop import imitate, train
from agile_ray.segments import cut
from agile_ray.types import RunState, TokenScores, Update
from agile_ray.weights import WeightsRef
from tests.fakes.worlds import ASKS, END, OPENING, PREDICTS, Says, lane, question

UPDATE = Update(tokens=1, padding=0.0, seconds=0.0, metrics={})


class Diary:
    """A fake for all four protocols: plays a real lane, and writes down what happened, in order."""

    def __init__(self, *, broken=False):
        self.entries, self.version, self.broken, self.rows = [], None, broken, []

    def collect(self):
        self.entries.append("collect")
        one = lane(*[question(i, "does it rust ?", answer="no") for i in range(2)], broken_tool=self.broken)
        broken = (*OPENING, f"[SearchProduct] SELECT all {END}")
        plans = (broken, broken) if self.broken else (ASKS, PREDICTS)
        return [asyncio.run(one.play(Says(*turns, version=self.version))) for turns in plans]

    def evaluate(self, *, split, sessions, greedy):
        self.entries.append(f"evaluate {split}")
        return []

    def load(self, weights):
        self.entries.append(f"load {weights.version}")
        self.version = weights.version

    def state(self):
        return b""

    def restore(self, state=None):
        return RunState(imitation_steps=0, iteration=0, version=0)

    def imitate(self, segments, *, step):
        self.entries.append(f"imitate {step}")
        return UPDATE

    def score(self, prefixes):
        zeros = [np.zeros(prefix.actions, np.float32) for prefix in prefixes]
        return [TokenScores(**dict.fromkeys(TokenScores.__slots__, z)) for z in zeros]

    def learn(self, rows, *, seed, done):
        self.entries.append(f"learn {len(rows)}")
        self.rows = rows
        return UPDATE

    def publish(self, version):
        return WeightsRef(version=version, buckets=(), blobs=(), probes=())

    def save(self, state, *, score):
        self.entries.append(f"save {state.imitation_steps} {state.iteration} {score}")

    @contextlib.contextmanager
    def timed(self, phase):
        yield

    def imitation(self, state, update):
        pass

    def iteration(self, state, **counts):
        self.entries.append(f"iteration {state.iteration}")

    def evaluation(self, state, name, sessions):
        return 0.5


def config(**loop):
    return RunConfig.model_validate(
        {
            "run": {"name": "t"},
            "model": {"path": "m"},
            "env": {"name": "shop"},
            "imitation": {"checkpoint_every": 2},
            "credit": {"mode": "heuristic"},
            "loop": {"iterations": 2, "evaluate_every": 2, "checkpoint_every": 1, **loop},
        }
    )


def run(diary, *, state=None, stopping=lambda: False, **loop):
    start = state or diary.restore()
    parts = {"rollouts": diary, "learners": diary, "checkpoints": diary, "recorder": diary, "stopping": stopping}
    return train(config(**loop), start, **parts)


def test_train_publishes_before_it_samples_and_validates_before_it_checkpoints():
    diary = Diary()
    assert run(diary) == RunState(imitation_steps=0, iteration=2, version=2)
    assert diary.entries == [
        "load 0",
        *("collect", "learn 2", "load 1", "iteration 1", "save 0 1 None"),
        *("collect", "learn 2", "load 2", "iteration 2", "evaluate validation", "save 0 2 0.5"),
    ]


def test_train_gives_the_writing_session_its_credit():
    diary = Diary()
    run(diary, iterations=1)
    assert [row.credit for row in diary.rows] == [pytest.approx(0.1), 0.0]


def test_train_goes_on_from_a_restored_state():
    diary = Diary()
    run(diary, state=RunState(imitation_steps=5, iteration=1, version=1))
    assert diary.entries[:2] == ["load 1", "collect"]
    assert diary.entries.count("collect") == 1


def test_train_checkpoints_and_returns_when_told_to_stop():
    diary = Diary()
    told = iter([False, True, True])
    state = run(diary, stopping=lambda: next(told), checkpoint_every=9, iterations=5, evaluate_every=9)
    assert state.iteration == 1
    assert diary.entries[-1] == "save 0 1 None"


def test_train_stops_when_every_session_failed():
    with pytest.raises(StarvedError, match="iteration 1: 2 sessions, none to train on"):
        run(Diary(broken=True))


def test_imitate_learns_each_batch_once_and_resumes_behind_the_last():
    diary = Diary()
    teacher = Diary()
    teacher.version = 0
    batches = [list(cut(session)) for session in teacher.collect()]
    parts = {"learners": diary, "checkpoints": diary, "recorder": diary, "stopping": lambda: False}
    parts["progress"] = lambda steps: None
    state = imitate(config(), RunState(imitation_steps=1, iteration=0, version=0), batches * 2, **parts)
    assert state.imitation_steps == 4
    assert diary.entries == ["imitate 1", "save 2 0 None", "imitate 2", "imitate 3", "save 4 0 None", "save 4 0 None"]
