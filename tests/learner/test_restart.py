"""Fresh ranks take the places of lost ones, and whatever asks the group asks them."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from agile_ray.config import PPO, Cluster, Imitation, Learner, Rollout
from agile_ray.errors import RankLostError
from learner import group
from learner.group import LearnerGroup
from learner.messages import RankSettings

PLACES = ["bundle 0", "bundle 1"]


class Hired:
    """Stands for the actors of all ranks; only as many groups of them start as `starts` says."""

    log: list[str]
    settings: list[tuple[object, ...]]
    starts: int

    def __init__(self, *, ranks: int, seed: int, places: Sequence[object], **_: object) -> None:
        self.number = len(self.settings)
        self.asked = (ranks, seed, tuple(places))
        self.handles: list[object] = []

    def start(self, settings: RankSettings, roll_call: object) -> tuple[()]:
        self.settings.append((*self.asked, settings, roll_call))
        self.log.append(f"start {self.number}")
        if self.number >= self.starts:
            raise RankLostError("a rank died at once")
        return ()

    def shutdown(self) -> None:
        self.log.append(f"end {self.number}")

    def wait(self, call: str, answers: Sequence[object]) -> list[object]:
        self.log.append(f"{call} {self.number}")
        return []


@pytest.fixture
def learners(monkeypatch: pytest.MonkeyPatch) -> LearnerGroup:
    Hired.log, Hired.settings, Hired.starts = [], [], 9
    monkeypatch.setattr(group, "RankActors", Hired)
    return LearnerGroup(
        Path("model"),
        learner=Learner(ranks=2),
        ppo=PPO(),
        imitation=Imitation(),
        rollout=Rollout(),
        cluster=Cluster(),
        function_ids=[5],
        probes=[],
        seed=3,
        places=cast("Sequence[PlacementGroupSchedulingStrategy]", PLACES),
    )


def test_lost_ranks_end_before_fresh_ones_start_in_their_places(learners: LearnerGroup) -> None:
    learners.restart()
    learners.export(Path("policy"))
    assert Hired.log == ["start 0", "end 0", "start 1", "export 1"]
    first, second = Hired.settings
    assert first == second
    assert first[:3] == (2, 3, tuple(PLACES))
    assert learners.counts() == {"learner_restarts": 1}
    assert learners.counts() == {"learner_restarts": 0}


def test_ranks_that_do_not_start_are_replaced_again(learners: LearnerGroup) -> None:
    Hired.starts = 1
    with pytest.raises(RankLostError):
        learners.restart()
    Hired.starts = 9
    learners.restart()
    learners.shutdown()
    assert Hired.log[-2:] == ["start 2", "end 2"]
    assert learners.counts() == {"learner_restarts": 2}
