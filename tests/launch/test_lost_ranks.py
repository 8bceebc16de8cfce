"""A learner rank is lost at any moment of a training: it goes on in the same process, and leaves what it would anyway.

The pipeline, the pool, the checkpoints and the record are real; engines, ranks and the final comparison are fakes.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

import pytest

from agile_ray.config import Credit, Env, Evaluate, Imitation, Loop, Model, Rollout, Run, RunConfig
from agile_ray.errors import AgileError, LearnerError, RankLateError, RankLostError
from agile_ray.record import history, store
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from agile_ray.record.ledger import audit
from agile_ray.types import RunState, Segment, Update
from agile_ray.weights import WeightsRef
from launch.cluster.lost_ranks import RESUMES
from launch.cluster.room import Room
from launch.run import assembly, pipeline
from launch.run.assembly import Machines, Parts
from launch.run.progress import Progress
from learner.group import LearnerGroup
from rollout.fleet import dispatch
from rollout.pool import RolloutPool
from tests.chaos.checks import Expected, ages, one_line_each, trained_once
from tests.fakes.checkpoint import export
from tests.fakes.fleet import WORLD, CountingExpert, Rig, charged
from tests.fakes.parts import zeros
from tests.rollout.test_pool import Rented

LANES, SESSIONS, ITERATIONS, STEPS = 3, 2, 4, 4
UPDATE = Update(tokens=9, padding=0.0, seconds=1.0, metrics={"loss": 0.0, "kl_nats": 0.0})
GONE = RankLostError("learner.x: a rank's process died (pid 7)")
LATE = RankLateError("learner.x: every rank must answer within cluster.deadline_s (1 s), these did not: rank 1")


class Ranks:
    """Learners whose weights tell all that they have learned. Calls can fail; lost ranks answer none."""

    def __init__(self, fails: Mapping[tuple[str, int], AgileError]) -> None:
        self.fails = fails  # by call, and which one of its kind, from 1
        self.calls: Counter[str] = Counter()
        self.restarts = self.counted = 0
        self._begin()

    def _begin(self) -> None:
        self.weights, self.reference, self.lost = "model", None, None

    def _call(self, name: str) -> None:
        if self.lost is not None:
            raise self.lost
        self.calls[name] += 1
        error = self.fails.get((name, self.calls[name]))
        if isinstance(error, RankLostError):
            self.lost = error
        if error is not None:
            raise error

    def imitate(self, demonstrations, *, step, steps):
        self._call("imitate")
        self.weights = digest(self.weights, step, places(one.segment for one in demonstrations))
        return UPDATE

    def score(self, segments, prefixes):
        self._call("score")
        assert self.reference is not None
        return [zeros(segment) for segment in segments], [zeros(prefix) for prefix in prefixes]

    def learn(self, rows, *, seed, progress):
        self._call("learn")
        self.weights = digest(self.weights, seed, places(row.segment for row in rows))
        return UPDATE

    def publish(self, version):
        self._call("publish")
        return WeightsRef(version=version, buckets=(), blobs=(), probes=())

    def set_reference(self, folder):
        self._call("set_reference")
        self.reference = folder

    def export(self, folder):
        self._call("export")
        export(folder)

    def save(self, folder):
        (folder / "weights").write_text("half")
        self._call("save")
        (folder / "weights").write_text(self.weights)

    def load(self, folder):
        self._call("load")
        self.weights = (folder / "weights").read_text()

    def reopen(self, *, ppo, imitation):
        pass  # the controller of the KL is not faked

    def restart(self, roll_call):
        assert roll_call.folder.is_dir()
        self.restarts += 1
        self._begin()
        self._call("restart")

    def counts(self):
        found = self.restarts - self.counted
        self.counted = self.restarts
        return {"learner_restarts": found}


def places(segments: Iterable[Segment]) -> list[tuple[str, int, int]]:
    return [(one.stream, one.position, one.index) for one in segments]


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Quiet(Progress):
    """Keeps its lines."""

    def __init__(self) -> None:
        super().__init__(imitation_steps=1, iterations=ITERATIONS)
        self.said: list[str] = []

    def say(self, *parts: object) -> None:
        self.said.append("".join(map(str, parts)))


class Counted(Rented):
    """A pool on fakes that also keeps what it has counted."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.kept: Counter[str] = Counter()
        super().__init__(rig, folder)

    def counts(self) -> Mapping[str, int]:
        found = super().counts()
        self.kept.update(found)
        return found


class Training:
    """Trainings in one folder, on fakes; the attributes belong to the latest one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch

    def train(
        self,
        fails: Mapping[tuple[str, int], AgileError],
        *,
        max_age: int = 0,
        asked_to_stop: bool = False,
        **loop: int,
    ) -> str:
        """Train with ranks that fail; returns the last weights.

        Args:
            asked_to_stop: whether SIGTERM comes with the loss of a rank.
        """
        config = configured(self.folder, max_age=max_age, **loop)
        self.run, self.expert, self.progress = RunFolder.of(config), CountingExpert(), Quiet()
        self.ranks = ranks = Ranks(fails)
        rig = Rig(
            total=LANES,
            sessions=SESSIONS,
            max_age=max_age,
            batches=ITERATIONS,
            slow_s=0.0005,
            expert=self.expert,
            journals=self.run,
        )
        self.monkeypatch.setattr(assembly, "rules_of", lambda *_: rig.rules)
        self.pool = Counted(rig, self.run.path)
        machines = Machines(
            config=config, room=cast("Room", None), learners=cast("LearnerGroup", ranks), rollouts=self.pool
        )
        stopping = (lambda: ranks.lost is not None) if asked_to_stop else (lambda: False)
        try:
            assert pipeline.run(config, WORLD, machines, self.progress, stopping)
        finally:
            self.pool.shutdown()
        return (self.run.checkpoints / f"iteration-{ITERATIONS:05d}/resume/learners/weights").read_text()

    def check(self, *, max_age: int = 0) -> None:
        """Every session of the surviving lineage is trained once, and every ask is paid and booked once."""
        expected = Expected(iterations=ITERATIONS, sessions=LANES * SESSIONS * ITERATIONS, max_age=max_age)
        for promise in (trained_once, one_line_each, ages):
            promise(self.run, expected)
        lines = history.read(self.run.history)
        books = audit(self.run, lines)
        asked = Counter(charged(one for number in range(1, ITERATIONS + 1) for one in store.outcomes(self.run, number)))
        assert set(asked.values()) == {1}
        assert books.trained.asks + books.abandoned.asks == len(asked)
        again = sum(self.expert.asked[key] - 1 for key in asked)
        assert 0 <= again <= self.pool.kept["unsure_asks"]
        assert not self.run.journals()
        assert sum(line.counts.get("fleet/learner_restarts", 0) for line in lines) == self.ranks.restarts


def quick(training: Training) -> Training:
    """Let trainings wait less, and end with one more version of the weights."""

    def compare(parts: Parts, state: RunState) -> None:
        parts.rollouts.load(parts.learners.publish(state.version))

    training.monkeypatch.setattr(dispatch, "GATHER_S", 0.001)
    training.monkeypatch.setattr(dispatch, "PULSE_S", 0.05)
    training.monkeypatch.setattr(pipeline.final_comparison, "compare", compare)
    return training


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Training:
    return quick(Training(tmp_path, monkeypatch))


def configured(folder: Path, *, max_age: int, **loop: int) -> RunConfig:
    settings = {"checkpoint_every": 2, "evaluate_every": 3} | loop
    return RunConfig(
        run=Run(name="r", folder=folder),
        model=Model(path=folder),
        env=Env(name="recurring"),
        imitation=Imitation(sessions=2 * STEPS, batch=2, checkpoint_every=2),
        credit=Credit(mode="heuristic"),
        rollout=Rollout(actors=2, seats=2),
        loop=Loop(lanes=LANES, sessions_per_lane=SESSIONS, iterations=ITERATIONS, max_age=max_age, **settings),
        evaluate=Evaluate(sessions=4, validation_sessions=4),
    )


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The last weights of a training whose ranks are never lost."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        one = quick(Training(tmp_path_factory.mktemp("usual"), monkeypatch))
        weights = one.train({})
        one.check()
    assert one.ranks.restarts == 0
    return weights


MOMENTS = [
    *(("imitate", 1), ("imitate", 4), ("export", 1), ("save", 2), ("set_reference", 1)),
    *(("publish", 1), ("publish", 2)),  # for the evaluation of the SFT policy, and before the first batch
    *(("score", 1), ("score", 4), ("learn", 1), ("learn", 3)),
    *(("publish", 4), ("publish", 7)),  # after the second iteration, and at the end
    *(("export", 3), ("save", 3), ("save", 5)),
]


@pytest.mark.parametrize(("call", "number"), MOMENTS)
def test_a_rank_that_is_lost_at_any_moment_costs_no_session_and_no_ask(
    training: Training, usual: str, call: str, number: int
) -> None:
    assert training.train({(call, number): GONE}) == usual
    training.check()
    assert training.ranks.restarts == 1
    [line] = [line for line in training.progress.said if "lost a learner rank" in line]
    assert str(GONE) in line


@pytest.mark.parametrize("max_age", [1, 2])
def test_lanes_that_play_ahead_are_rewound_too(training: Training, usual: str, max_age: int) -> None:
    fails = {("learn", 1): GONE, ("learn", 3): LATE, ("score", 6): GONE, ("load", 3): LATE, ("restart", 2): GONE}
    assert training.train(fails, max_age=max_age) == usual
    assert training.ranks.restarts == len(fails)
    training.check(max_age=max_age)


def test_ranks_may_be_lost_any_number_of_times_as_long_as_checkpoints_are_made(training: Training) -> None:
    fails = {("score", 2 * number): GONE for number in range(1, ITERATIONS)} | {("imitate", 3): LATE}
    training.train(fails, checkpoint_every=1)
    assert training.ranks.restarts == len(fails) > RESUMES
    training.check()


def test_beyond_the_budget_the_run_ends_with_the_commonest_reason_and_the_same_command_resumes(
    training: Training,
) -> None:
    fails = {("score", 1): GONE, ("score", 2): LATE, ("restart", 2): GONE, ("score", 3): GONE}
    with pytest.raises(LearnerError) as ended:
        training.train(fails)
    assert str(ended.value) == (
        f"learner: a run resumes 3 times from imitation-{STEPS:05d}, but ranks were lost 4 times, 3 of them by: {GONE}"
        "; run again to resume"
    )
    assert not isinstance(ended.value, RankLostError)
    assert training.ranks.restarts == RESUMES
    lines = history.read(training.run.history)
    assert [line.counts["fleet/learner_restarts"] for line in lines if line.event is Event.RESUME] == [1, 2]
    training.train({})
    assert training.ranks.restarts == 0


@pytest.mark.parametrize("call", ["imitate", "learn", "save"])
def test_an_error_that_would_come_again_ends_the_run_at_once(training: Training, call: str) -> None:
    with pytest.raises(LearnerError, match="every loss must be finite"):
        training.train({(call, 1): LearnerError("learner.learn: every loss must be finite, found nan")})
    assert training.ranks.restarts == 0


def test_a_run_that_was_asked_to_stop_starts_no_fresh_ranks(training: Training) -> None:
    with pytest.raises(RankLostError, match="pid 7"):
        training.train({("score", 2): GONE}, asked_to_stop=True)
    assert training.ranks.restarts == 0


class Logged:
    """Answers every call, and writes it down."""

    def __init__(self, who: str, log: list[str]) -> None:
        self.who, self.log = who, log

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: self.log.append(f"{self.who} {name}")


def test_nccl_is_opened_from_the_fresh_ranks_once_the_lanes_have_come_to_rest(tmp_path: Path) -> None:
    log: list[str] = []
    config = configured(tmp_path, max_age=0)
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"transport": "nccl"})})
    machines = Machines(
        config=config,
        room=cast("Room", None),
        learners=cast("LearnerGroup", Logged("ranks", log)),
        rollouts=cast("RolloutPool", Logged("lanes", log)),
    )
    machines.restart_learners(config, Quiet())
    assert log == ["lanes reopen", "ranks reopen", "ranks restart", "lanes connect"]
