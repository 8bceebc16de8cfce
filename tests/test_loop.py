import asyncio
import itertools
from dataclasses import replace

import pytest

from agile_ray.agent.expert import GoldExpert
from agile_ray.config import RunConfig
from agile_ray.credit.assign import CreditAssigner
from agile_ray.errors import ExpertError, StarvedError
from agile_ray.loop import imitate, train
from agile_ray.prices import Prices
from agile_ray.segments import cut
from agile_ray.types import RunState
from tests.fakes.parts import START, FakeCheckpoints, FakeLearners, FakeRecorder, FakeRollouts
from tests.fakes.worlds import OPENING, Says, lane, question, rules


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


class Run:
    """A run of fakes, and the log that they share."""

    def __init__(self, *, broken=False, sessions=None):
        self.log = []
        self.rollouts, self.learners = FakeRollouts(self.log, broken=broken), FakeLearners(self.log)
        if sessions is not None:
            self.rollouts.play = lambda: sessions
        self.checkpoints, self.recorder = FakeCheckpoints(self.log), FakeRecorder(self.log)

    def train(self, *, state=START, stopping=lambda: False, **loop):
        settings = config(**loop)
        return train(
            settings,
            state,
            rollouts=self.rollouts,
            learners=self.learners,
            credit=CreditAssigner(settings.credit),
            checkpoints=self.checkpoints,
            recorder=self.recorder,
            stopping=stopping,
        )


def test_train_publishes_before_it_samples_and_validates_before_it_checkpoints():
    run = Run()
    assert run.train() == RunState(imitation_steps=0, iteration=2, version=2)
    assert run.log == [
        "load 0",
        *("collect", "learn 2", "load 1", "iteration 1", "save 0 1 None"),
        *("collect", "learn 2", "load 2", "iteration 2", "evaluate validation", "save 0 2 0.35"),
    ]


def test_train_gives_the_writing_session_its_credit():
    run = Run()
    run.train(iterations=1)
    assert [row.credit for row in run.learners.rows] == [pytest.approx(0.1), 0.0]


def test_train_continues_from_a_restored_state():
    run = Run()
    run.train(state=RunState(imitation_steps=5, iteration=1, version=1))
    assert run.log[:2] == ["load 1", "collect"]
    assert run.log.count("collect") == 1


def test_train_checkpoints_and_returns_when_told_to_stop():
    run = Run()
    stops = iter([False, True, True])
    state = run.train(stopping=lambda: next(stops), checkpoint_every=9, iterations=5, evaluate_every=9)
    assert state.iteration == 1
    assert run.log[-1] == "save 0 1 None"


def test_train_stops_when_every_session_failed():
    with pytest.raises(StarvedError, match="none to train on; 2 of 2 failed, 2 of them by: ToolError: shop.db: d"):
        Run(broken=True).train()


class Refuses(GoldExpert):
    """A service with a wrong key, which yet answers some questions."""

    source = "http"

    def __init__(self, *answered):
        self.answered = answered

    async def advise(self, question, *, key):
        if key.position in self.answered:
            return await super().advise(question, key=key)
        raise ExpertError("expert http: no answer" if key.position == 0 else f"expert http: status 401, {key}")


def alone(asks, *answered):
    """Sessions with one ask each, whose agent goes on alone if there is no answer."""
    by = replace(rules(expert=Refuses(*answered)), prices=Prices(amounts=(300,), alone=True))
    one = lane(*[question(n, f"does {n} rust ?") for n in range(asks)], with_rules=by)
    turns = (*OPENING, "[SeekAdvice]", "[PredictAnswer] yes [SubmitAnswer] [ClearContext]")
    return [asyncio.run(one.play(Says(*turns))) for _ in range(asks)]


def test_train_ends_before_it_learns_from_an_iteration_whose_every_ask_met_a_fault():
    run = Run(sessions=alone(9))
    says = (
        r"iteration 1: env.expert \(http\): needs .* none to 9, 8 of them by: expert http: status 401, .*; mend the exp"
    )
    with pytest.raises(StarvedError, match=says):
        run.train()
    assert run.log == ["load 0", "collect"]


@pytest.mark.parametrize("sessions", [(7,), (9, 4)])
def test_train_goes_on_with_few_asks_or_one_answer(sessions):
    assert Run(sessions=alone(*sessions)).train(iterations=1).iteration == 1


def test_imitate_learns_each_batch_once_and_resumes_after_the_last():
    run = Run()
    batches = [list(cut(session)) for session in FakeRollouts().play()]
    state = imitate(
        config(),
        RunState(imitation_steps=1, iteration=0, version=0),
        batches * 2,
        learners=run.learners,
        checkpoints=run.checkpoints,
        recorder=run.recorder,
        stopping=lambda: False,
        progress=lambda steps: None,
    )
    assert state.imitation_steps == 4
    assert run.log == ["imitate 1", "save 2 0 None", "imitate 2", "imitate 3", "save 4 0 None", "save 4 0 None"]


def test_a_run_that_imitates_nothing_has_a_checkpoint_to_start_from():
    run = Run()
    state = imitate(
        config(),
        START,
        [],
        learners=run.learners,
        checkpoints=run.checkpoints,
        recorder=run.recorder,
        stopping=lambda: False,
        progress=lambda steps: None,
    )
    assert (state, run.log) == (START, ["save 0 0 None"])


@pytest.mark.parametrize("checks", range(1, 6))
def test_a_stop_that_comes_at_any_moment_leaves_a_checkpoint_of_the_last_iteration(checks):
    run = Run()
    count = itertools.count()
    state = run.train(stopping=lambda: next(count) >= checks, checkpoint_every=9, iterations=9, evaluate_every=9)
    assert run.log[-1] == f"save 0 {state.iteration} None"
