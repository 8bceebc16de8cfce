"""Engines and ranks that share GPUs take turns: the order of their calls in a training."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agile_ray.config import RunConfig
from agile_ray.credit.assign import CreditAssigner
from agile_ray.errors import EngineError, RankLostError
from agile_ray.loop import train
from agile_ray.scripted.head_start import AskingShares
from agile_ray.types import Segment, Session, TokenScores, TrainingRow, Update
from agile_ray.weights import WeightsRef
from launch.cluster.turns import Turns
from learner.group import LearnerGroup
from rollout.pool import RolloutPool
from tests.fakes.parts import START, FakeCheckpoints, FakeLearners, FakeRecorder, FakeRollouts


class Engines(FakeRollouts):
    """Engines that take the turn, and fail if they compute asleep."""

    def __init__(self, log: list[str], turns: Turns) -> None:
        super().__init__(log)
        self.turns, self.asleep = turns, True

    def play(self) -> list[Session]:
        assert not self.asleep
        return super().play()

    def collect(self) -> list[Session]:
        self.turns.play()
        return super().collect()

    def evaluate(self, *, split: str, sessions: int | None, greedy: bool) -> list[Session]:
        self.turns.play()
        return super().evaluate(split=split, sessions=sessions, greedy=greedy)

    def load(self, weights: WeightsRef) -> None:
        self.turns.play()
        assert not self.asleep
        super().load(weights)

    def sleep(self) -> None:
        self.log.append("sleep")
        self.asleep = True

    def wake(self) -> None:
        self.log.append("wake")
        self.asleep = False


class Ranks(FakeLearners):
    """Learners that take the turn, and fail if they compute while their states are in main memory."""

    def __init__(self, log: list[str], turns: Turns) -> None:
        super().__init__(log)
        self.turns, self.away = turns, False

    def score(
        self, segments: Sequence[Segment], prefixes: Sequence[Segment]
    ) -> tuple[list[TokenScores], list[TokenScores]]:
        self.turns.learn()
        assert not self.away
        self.log.append("score")
        return super().score(segments, prefixes)

    def learn(self, rows: Sequence[TrainingRow], *, seed: int, progress: float) -> Update:
        self.turns.learn()
        assert not self.away
        return super().learn(rows, seed=seed, progress=progress)

    def publish(self, version: int) -> WeightsRef:
        self.turns.learn()
        assert not self.away
        self.log.append(f"publish {version}")
        return super().publish(version)

    def offload(self) -> None:
        self.log.append("offload")
        self.away = True

    def reload(self) -> None:
        self.log.append("reload")
        self.away = False


def trained(*, shared: bool) -> list[str]:
    """The log of a training of two iterations, of which the second ends with a validation."""
    settings = RunConfig.model_validate(
        {
            "run": {"name": "t"},
            "model": {"path": "m"},
            "env": {"name": "shop"},
            "loop": {"iterations": 2, "evaluate_every": 2, "checkpoint_every": 9},
        }
    )
    log, turns = [], Turns()
    engines, ranks = Engines(log, turns), Ranks(log, turns)
    if shared:
        turns.begin(ranks, engines)
    else:
        engines.asleep = False
    train(
        settings,
        START,
        rollouts=engines,
        learners=ranks,
        credit=CreditAssigner(settings.credit),
        checkpoints=FakeCheckpoints(log),
        recorder=FakeRecorder(log),
        stopping=lambda: False,
    )
    return log


def test_the_gpus_change_hands_twice_in_an_iteration_and_each_side_leaves_before_the_other_comes() -> None:
    assert trained(shared=True) == [
        *("publish 0", "offload", "wake", "load 0", "collect"),
        *("sleep", "reload", "score", "learn 2", "publish 1", "offload", "wake", "load 1", "iteration 1", "collect"),
        *("sleep", "reload", "score", "learn 2", "publish 2", "offload", "wake", "load 2", "iteration 2"),
        *("evaluate validation", "save 0 2 0.35"),
    ]


def test_without_sharing_nothing_is_moved_and_the_rest_is_the_same() -> None:
    moves = {"offload", "wake", "sleep", "reload"}
    assert trained(shared=False) == [call for call in trained(shared=True) if call not in moves]


def test_a_side_that_does_not_leave_keeps_the_other_from_coming() -> None:
    class Stuck(Engines):
        def sleep(self) -> None:
            raise EngineError("rollout: vLLM's sleep: no")

    log, turns = [], Turns()
    engines, ranks = Stuck(log, turns), Ranks(log, turns)
    turns.begin(ranks, engines)
    turns.play()
    with pytest.raises(EngineError, match="sleep"):
        turns.learn()
    assert log == ["offload", "wake"]


class Dead(Ranks):
    """Learners of which a rank died while the engines played."""

    def reload(self) -> None:
        super().reload()
        raise RankLostError("a rank died")


@pytest.mark.parametrize("noticed", [True, False])
def test_fresh_ranks_start_once_the_engines_have_left_and_have_the_turn(noticed: bool) -> None:
    log, turns = [], Turns()
    engines, ranks = Engines(log, turns), Dead(log, turns)
    turns.begin(ranks, engines)
    turns.play()
    if noticed:
        with pytest.raises(RankLostError):
            turns.learn()
    turns.renew(lambda: log.append("restart"))
    turns.learn()
    assert log == ["offload", "wake", "sleep", *(["reload"] if noticed else []), "restart"]
    turns.play()
    assert log[-2:] == ["offload", "wake"]


def test_a_restart_that_fails_may_be_tried_again() -> None:
    log, turns = [], Turns()
    turns.begin(Ranks(log, turns), Engines(log, turns))
    turns.play()

    def restart() -> None:
        log.append("restart")
        if log.count("restart") == 1:
            raise RankLostError("it died again")

    with pytest.raises(RankLostError):
        turns.renew(restart)
    turns.renew(restart)
    assert log == ["offload", "wake", "sleep", "restart", "restart"]


class Taken(Exception):
    """The turn was taken before anything else was done."""


def refuse() -> None:
    raise Taken


NOWHERE = Path("nowhere")
WEIGHTS = WeightsRef(version=1, buckets=(), blobs=(), probes=())


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: pool.collect(),
        lambda pool: pool.evaluate(split="test", sessions=1, greedy=True),
        lambda pool: pool.load(WEIGHTS),
        lambda pool: pool.spread(AskingShares(kinds={}, overall=0.0)),
    ],
)
def test_the_pool_takes_the_turn_before_an_engine_computes(call: Callable[[RolloutPool], object]) -> None:
    pool = RolloutPool.__new__(RolloutPool)
    pool._take_turn = refuse
    with pytest.raises(Taken):
        call(pool)


@pytest.mark.parametrize(
    "call",
    [
        lambda group: group.imitate([], step=0, steps=1),
        lambda group: group.score([], []),
        lambda group: group.learn([], seed=0, progress=0.0),
        lambda group: group.set_reference(NOWHERE),
        lambda group: group.publish(1),
        lambda group: group.export(NOWHERE),
        lambda group: group.save(NOWHERE),
        lambda group: group.load(NOWHERE),
    ],
)
def test_the_learners_take_the_turn_before_a_rank_uses_what_it_holds(call: Callable[[LearnerGroup], object]) -> None:
    group = LearnerGroup.__new__(LearnerGroup)
    group._take_turn = refuse
    with pytest.raises(Taken):
        call(group)
