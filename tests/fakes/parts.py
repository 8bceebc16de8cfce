"""The parts of a training loop, played by fakes that share a log of what was called, in order."""

import asyncio
import contextlib

import numpy as np

from agile_ray.types import RunState, TokenScores, Update
from agile_ray.weights import WeightsRef
from tests.fakes.worlds import ASKS, END, OPENING, PREDICTS, Says, lane, question

START = RunState(imitation_steps=0, iteration=0, version=0)
UPDATE = Update(tokens=1, padding=0.0, seconds=0.0, metrics={})
BROKEN = (*OPENING, f"[SearchProduct] SELECT all {END}")


class FakeRollouts:
    """Plays two sessions of a real lane: the first asks and writes, the second predicts a wrong answer."""

    def __init__(self, log=None, *, broken=False):
        self.log, self.version, self.broken = [] if log is None else log, None, broken

    def collect(self):
        self.log.append("collect")
        return self.play()

    def evaluate(self, *, split, sessions, greedy):
        self.log.append(f"evaluate {split}")
        return self.play()

    def play(self):
        one = lane(*[question(i, "does it rust ?", answer="no") for i in range(2)], broken_tool=self.broken)
        plans = (BROKEN, BROKEN) if self.broken else (ASKS, PREDICTS)
        return [asyncio.run(one.play(Says(*turns, version=self.version or 0))) for turns in plans]

    def load(self, weights):
        self.log.append(f"load {weights.version}")
        self.version = weights.version

    def save(self, folder, *, earlier):
        (folder / "nothing").touch()

    def restore(self, folder):
        assert (folder / "nothing").exists()


class FakeLearners:
    """Scores everything as 0 and keeps the rows it learned from."""

    def __init__(self, log=None, *, update=UPDATE):
        self.log, self.update, self.rows = [] if log is None else log, update, []

    def imitate(self, demonstrations, *, step, steps):
        self.log.append(f"imitate {step}")
        return self.update

    def score(self, segments, prefixes):
        return [zeros(segment) for segment in segments], [zeros(prefix) for prefix in prefixes]

    def learn(self, rows, *, seed, progress):
        self.log.append(f"learn {len(rows)}")
        self.rows = rows
        return self.update

    def publish(self, version):
        return WeightsRef(version=version, buckets=(), blobs=(), probes=())


class FakeCheckpoints:
    """Keeps the states that it was given and restores the last one."""

    def __init__(self, log=None):
        self.log, self.saved = [] if log is None else log, [START]

    def restore(self):
        return self.saved[-1]

    def save(self, state, *, score):
        self.saved.append(state)
        self.log.append(f"save {state.imitation_steps} {state.iteration} {score and score.total}")


class FakeRecorder:
    """Records nothing but the iterations that it was given."""

    def __init__(self, log=None):
        self.log = [] if log is None else log

    @contextlib.contextmanager
    def timed(self, phase):
        yield

    def imitation(self, state, update):
        pass

    def iteration(self, state, *, sessions, assigned, update):
        self.log.append(f"iteration {state.iteration}")

    def evaluation(self, state, name, sessions):
        pass


def zeros(segment):
    """Scores of a segment that are all 0."""
    return TokenScores(**dict.fromkeys(TokenScores.__slots__, np.zeros(segment.actions, np.float32)))
