"""When the policy after imitation is evaluated, and what lanes are spread by, across kills, resumptions and sweeps."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import envs
from agile_ray.config import RunConfig
from agile_ray.errors import StarvedError
from agile_ray.record import evaluations, history
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.scripted.head_start import AskingShares
from agile_ray.types import Ending, RunState, Session
from launch.report import files
from launch.run import adoption, final_comparison, pipeline, shipped_configs
from tests.fakes.played import played
from tests.fakes.worlds import changed

IMITATED = RunState(imitation_steps=9, iteration=0, version=0)
TESTED = ["test greedy", "test sampled"]
STARTED = "validation sampled"


class Rollouts:
    """Logs what it is asked for; each evaluation plays like the policy of this name."""

    def __init__(self, like: str) -> None:
        self.like, self.log, self.shares = like, [], []

    def load(self, weights: object) -> None:
        self.log.append("load")

    def evaluate(
        self, *, split: str, sessions: int | None, greedy: bool, parts: object = None, guide: object = None
    ) -> list[Session]:
        del parts
        assert guide is None
        self.log.append(f"{split} {'greedy' if greedy else 'sampled'}")
        assert split == "test" or sessions in (17, 18)
        if self.like == "failed":
            failed = [changed(one, ending=Ending.FAILED, error="the expert is gone") for one in played("random")]
            return played("random") if split == "test" else failed
        return played(self.like)

    def spread(self, shares: AskingShares) -> None:
        self.shares.append(shares)


def config(folder: Path, *overrides: str) -> RunConfig:
    here = ("run.name=one", f"run.folder={folder}")
    words = ("evaluate.validation_sessions=17", "loop.sessions_per_lane=5", "ppo.minibatches=1")
    given = {word.partition("=")[0]: word for word in (*here, *words, *overrides)}
    return shipped_configs.read("toy/three_prices", list(given.values()))


def run(settings: RunConfig, *, like: str = "random", state: RunState = IMITATED) -> Rollouts:
    """Run the stages before PPO, in a folder whose imitation is finished."""
    rollouts, folder = Rollouts(like), RunFolder.of(settings)
    folder.sft.path.mkdir(parents=True, exist_ok=True)
    recorder = RunRecorder(folder)
    parts = SimpleNamespace(
        config=settings,
        folder=folder,
        sft=folder.sft.path,
        environment=envs.build(settings.env, seed=settings.seed),
        checkpoints=SimpleNamespace(restore=lambda: state),
        learners=SimpleNamespace(set_reference=lambda _: None, publish=lambda _: None),
        rollouts=rollouts,
        recorder=recorder,
        credit=None,
        progress=SimpleNamespace(say=lambda _: None),
        stopping=lambda: False,
    )
    pipeline._run(parts)  # pyright: ignore[reportArgumentType]
    recorder.close()
    return rollouts


@pytest.fixture(autouse=True)
def _ends_before_ppo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.loop, "train", lambda _, state, **__: state)
    monkeypatch.setattr(final_comparison, "compare", lambda *_: None)


def shares_of(like: str) -> AskingShares:
    return AskingShares.of(played(like))


def test_the_first_start_spreads_lanes_by_a_sampled_evaluation_on_validation(tmp_path: Path):
    settings = config(tmp_path)
    rollouts = run(settings)
    assert rollouts.log == ["load", *TESTED, STARTED]
    assert rollouts.shares == [AskingShares(kinds={"fact": 0.0, "search": 0.5}, overall=0.25)]
    names = [line.name for line in history.read(RunFolder.of(settings).history) if line.name]
    assert names == ["sft", "sft_sampled", evaluations.STARTING]


def test_a_run_killed_before_its_first_checkpoint_spreads_lanes_by_the_stored_evaluation(tmp_path: Path):
    run(config(tmp_path))
    again = run(config(tmp_path), like="always_ask")
    assert (again.log, again.shares) == ([], [shares_of("random")])


def test_a_run_killed_between_its_evaluations_makes_only_the_missing_one(tmp_path: Path):
    settings = config(tmp_path)
    run(settings)
    RunFolder.of(settings).evaluation_file(evaluations.STARTING).unlink()
    again = run(settings, like="always_ask")
    assert (again.log, again.shares) == (["load", STARTED], [shares_of("always_ask")])


def test_an_evaluation_whose_sessions_all_failed_is_made_again(tmp_path: Path):
    with pytest.raises(StarvedError, match="the expert is gone"):
        run(config(tmp_path), like="failed")
    again = run(config(tmp_path))
    assert (again.log, again.shares) == (["load", STARTED], [shares_of("random")])


def test_an_evaluation_of_another_number_of_sessions_is_made_again(tmp_path: Path):
    run(config(tmp_path, "evaluate.validation_sessions=18"))
    again = run(config(tmp_path), like="always_ask")
    assert (again.log, again.shares) == (["load", STARTED], [shares_of("always_ask")])


def test_lanes_of_a_checkpoint_stay_where_they_are(tmp_path: Path):
    rollouts = run(config(tmp_path), state=RunState(imitation_steps=9, iteration=3, version=3))
    assert (rollouts.log, rollouts.shares) == ([], [])


@pytest.mark.parametrize("override", ["loop.sessions_per_lane=48", "loop.iterations=0", "loop.lanes=1"])
def test_lanes_that_all_begin_at_0_need_no_evaluation(tmp_path: Path, override: str):
    rollouts = run(config(tmp_path, override))
    assert (rollouts.log, rollouts.shares) == (["load", *TESTED], [])


def test_a_run_that_is_extended_from_none_to_some_iterations_spreads_its_lanes_then(tmp_path: Path):
    run(config(tmp_path, "loop.iterations=0"))
    rollouts = run(config(tmp_path))
    assert (rollouts.log, len(rollouts.shares)) == (["load", STARTED], 1)


def test_the_report_and_its_comparisons_leave_the_evaluation_on_validation_out(tmp_path: Path):
    settings = config(tmp_path)
    run(settings)
    folder = RunFolder.of(settings)
    evaluations.keep(folder, "ppo", played("ppo"))
    on_validation = [session for session in played("random") if session.position == 0]
    evaluations.keep(folder, evaluations.STARTING, on_validation)
    folder.config.write_text(settings.yaml())
    report = files.compose(folder)
    assert list(report.entries) == ["sft", "sft_sampled", "ppo"]
    assert set(report.differences) == {"sft", "sft_sampled"}


@pytest.mark.parametrize(
    ("own", "log", "like"),
    [
        (("ppo.clip=0.1",), [], "random"),
        (("loop.sessions_per_lane=7",), [], "random"),
        (("evaluate.sessions=24",), ["load", *TESTED, STARTED], "always_ask"),
        (("evaluate.validation_sessions=18",), ["load", STARTED], "always_ask"),
        (("rollout.temperature=0.5",), ["load", *TESTED, STARTED], "always_ask"),
    ],
)
def test_runs_of_a_sweep_that_share_the_evaluations_spread_their_lanes_alike(
    tmp_path: Path, own: Sequence[str], log: list[str], like: str
):
    donor, heir = config(tmp_path), config(tmp_path, "run.name=heir", *own)
    run(donor)
    adoption.adopt(heir, [donor, heir])
    rollouts = run(heir, like="always_ask")
    assert (rollouts.log, rollouts.shares) == (log, [shares_of(like)])


def test_an_heir_of_a_run_with_whole_streams_makes_the_evaluation_itself(tmp_path: Path):
    donor, heir = config(tmp_path, "loop.sessions_per_lane=24"), config(tmp_path, "run.name=heir")
    run(donor)
    adoption.adopt(heir, [donor, heir])
    rollouts = run(heir, like="always_ask")
    assert (rollouts.log, rollouts.shares) == (["load", STARTED], [shares_of("always_ask")])
