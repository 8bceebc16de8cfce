"""What the driver asks of the ranks to publish a version. Fakes in place of the ranks; nccl itself is not run."""

from types import SimpleNamespace

import numpy as np
import pytest
import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from agile_ray.errors import DeadlineError, EngineError, LearnerError
from agile_ray.weights import Probe
from learner.weights.engine_calls import ask_all
from learner.weights.publisher import Publisher

PROBE = Probe(ids=np.array([1, 2], np.int32), logprobs=np.array([0, -1], np.float32))


class FakeRanks:
    """Two ranks that record what they are asked, once it is waited for."""

    def __init__(self):
        self.calls = []
        answers = {"probe": (PROBE,), "send": None, "connect": None}
        rank = SimpleNamespace(
            **{name: SimpleNamespace(remote=lambda *_, answer=answer, **__: answer) for name, answer in answers.items()}
        )
        self.handles = [rank, rank]

    def wait(self, call, answers):
        self.calls.append(call)
        return list(answers)


def publisher(ranks):
    return Publisher(ranks, plans=(), transport="nccl", probes=[PROBE.ids], deadline_s=1.0)


def test_with_nccl_nothing_is_sent_until_the_engines_ask_for_it():
    ranks = FakeRanks()
    published = publisher(ranks)
    published.connect([], workers=2)
    weights = published.publish(3)
    assert (weights.version, weights.buckets, weights.probes) == (3, (), (PROBE,))
    assert ranks.calls == ["connect", "probe"]
    assert weights.transfer is not None
    weights.transfer()
    assert ranks.calls == ["connect", "probe", "send"]


def test_with_nccl_an_unconnected_learner_publishes_nothing():
    with pytest.raises(LearnerError, match="must be connected, found it closed"):
        publisher(FakeRanks()).publish(1)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (
            GetTimeoutError("late"),
            DeadlineError,
            r"update_weights must end within cluster\.deadline_s \(1 s\)",
        ),
        (RayTaskError("f", "Traceback", EngineError("actor 1 lost it")), EngineError, "^actor 1 lost it$"),
        (RayTaskError("f", "Traceback", OSError("a\nb")), LearnerError, "update_weights: OSError: a b$"),
    ],
)
def test_a_call_of_the_engines_that_fails_or_is_late_says_which(monkeypatch, error, expected, message):
    def get(*_, timeout):
        assert timeout == 1.0
        raise error

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(expected, match=message):
        ask_all("update_weights", [], deadline_s=1.0)
