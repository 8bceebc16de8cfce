"""Runs of a sweep that share machines: which of them share an imitation, how they end, and how they are compared."""

import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from agile_ray.config import RunConfig
from agile_ray.effects import imitation_of
from agile_ray.record import evaluations
from agile_ray.record.folder import RunFolder
from launch.report import paired_runs
from launch.report.paired_runs import RunPair
from launch.run import adoption, pipeline, shared_machines, shipped_configs, sweep_plan
from launch.run.assembly import Machines
from tests.fakes.played import played

POINT = ("env.advice_cost=0.7", "credit.mode=linked", "seed=1")


def point(*overrides: str) -> RunConfig:
    return shipped_configs.read("toy/three_prices", (*POINT, *overrides))


@pytest.mark.parametrize(
    "override",
    ["credit.mode=none", "ppo.learning_rate=1e-5", "loop.iterations=3", "run.name=other"],
)
def test_runs_share_imitation_if_no_key_that_affects_it_differs(override):
    assert imitation_of(point(override)) == imitation_of(point())


@pytest.mark.parametrize(
    "override",
    [
        "seed=2",
        "env.advice_cost=0.4",
        "imitation.asked_share=0.1",
        "agent.turns=3",
        "memory.top_k=2",
        "ppo.critic_learning_rate=1e-3",
        "learner.ranks=1",
    ],
)
def test_runs_do_not_share_imitation_if_a_key_that_affects_it_differs(override):
    assert imitation_of(point("credit.mode=none", override)) != imitation_of(point("credit.mode=none"))


@pytest.mark.parametrize(
    ("override", "fits"),
    [("seed=2", True), ("imitation.asked_share=0.1", True), ("agent.session_tokens=64", False)],
)
def test_machines_fit_a_run_with_the_same_start_up_settings(override, fits):
    assert machines(point()).fit(point(override)) == fits


def test_machines_do_not_fit_a_run_that_imitates_in_another_dtype():
    one = point("imitation.dtype=float32")
    assert machines(one).fit(one)
    assert not machines(one).fit(point("imitation.dtype=bfloat16"))


def machines(config: RunConfig) -> Machines:
    learners = SimpleNamespace(save=lambda _: None, load=lambda _: None, shutdown=lambda: None, reopen=lambda **_: None)
    rollouts = SimpleNamespace(shutdown=lambda: None, reopen=lambda *_, **__: None)
    room = SimpleNamespace(close=lambda: None)
    return Machines(config=config, room=room, learners=learners, rollouts=rollouts)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def train_with_sigterm(monkeypatch):
    """`train_all` on runs that need no machines; SIGTERM comes at the end of the run `in_run`.

    The run `unfinished` ends without a report, like a run that was stopped while it learned.
    """
    before = signal.getsignal(signal.SIGTERM)

    def train_all(runs: list[RunConfig], *, in_run: str, unfinished: str = "") -> list[str]:
        def run(config: RunConfig, *_: object) -> None:
            if config.run.name != unfinished:
                RunFolder.of(config).report.write_text("{}")
            if config.run.name == in_run:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(pipeline, "run", run)
        return shared_machines.train_all(runs)

    monkeypatch.setattr(pipeline, "prepare", lambda _: None)
    monkeypatch.setattr(shared_machines, "cluster", lambda *_, **__: nullcontext())
    monkeypatch.setattr(shared_machines, "start", lambda config, *_: machines(config))
    yield train_all
    signal.signal(signal.SIGTERM, before)


def runs(folder: Path) -> list[RunConfig]:
    return [point(f"run.folder={folder}", f"run.name={name}") for name in ("first", "last")]


def test_sigterm_while_the_last_run_finishes_leaves_the_sweep_finished(train_with_sigterm, tmp_path: Path):
    assert train_with_sigterm(runs(tmp_path), in_run="last") == []
    assert train_with_sigterm(runs(tmp_path), in_run="last") == []


@pytest.mark.parametrize(
    ("name", "unfinished", "begun"), [("first", "", ["first"]), ("last", "last", ["first", "last"])]
)
def test_sigterm_before_the_last_run_is_finished_ends_the_sweep(train_with_sigterm, tmp_path, name, unfinished, begun):
    with pytest.raises(SystemExit) as end:
        train_with_sigterm(runs(tmp_path), in_run=name, unfinished=unfinished)
    assert end.value.code == 128 + signal.SIGTERM
    assert sorted(path.name for path in tmp_path.iterdir()) == begun


def adopted(folder: Path, *overrides: str) -> set[str]:
    """What a run takes over from a run with a finished SFT evaluation: names of entries, and `sft` itself."""
    donor = point(f"run.folder={folder}", "run.name=donor")
    heir = point(f"run.folder={folder}", "run.name=heir", *overrides)
    RunFolder.of(donor).sft.path.mkdir(parents=True)
    for entry in ("sft", "sft_sampled", "always_ask"):
        evaluations.keep(RunFolder.of(donor), entry, played("ppo"))
    adoption.adopt(heir, [donor, heir])
    found = {"sft"} if RunFolder.of(heir).sft.path.exists() else set()
    return found | {f"evaluation of {entry}" for entry in evaluations.kept(RunFolder.of(heir))}


BOTH = {"sft", "evaluation of sft", "evaluation of sft_sampled"}


@pytest.mark.parametrize(
    ("override", "shared"),
    [
        ("credit.mode=none", BOTH),
        ("ppo.clip=0.1", BOTH),
        ("evaluate.validation_sessions=5", BOTH),
        ("rollout.temperature=0.5", {"sft"}),
        ("rollout.dtype=bfloat16", {"sft"}),
        ("evaluate.sessions=24", {"sft"}),
        ("env.advice_cost=0.4", set()),
        ("imitation.batch=8", set()),
        ("env.expert=recorded:/run", {"sft"}),  # imitation has gold advice, whoever is asked later
    ],
)
def test_a_run_adopts_an_evaluation_only_if_no_key_that_affects_it_differs(tmp_path: Path, override, shared):
    assert adopted(tmp_path, override) == shared


def test_runs_of_different_prices_share_the_imitation_that_ignores_it_but_not_its_evaluations(tmp_path: Path):
    here = f"run.folder={tmp_path}"
    donor, heir = point(here, "run.name=donor"), point(here, "run.name=heir", "env.advice_cost=0.4")
    RunFolder.of(donor).sft.path.mkdir(parents=True)
    evaluations.keep(RunFolder.of(donor), "sft_sampled", played("ppo"))
    assert adoption.adopt(heir, [donor, heir]) is None
    assert not adoption.has_begun(heir)
    assert adoption.adopt(heir, [donor, heir], ["env.advice_cost"]) == "donor"
    assert adoption.has_begun(heir)
    assert list(evaluations.kept(RunFolder.of(heir))) == []
    other = point("seed=2", "env.advice_cost=0.4")
    assert adoption.imitation_key(heir, ["env.advice_cost"]) == adoption.imitation_key(donor, ["env.advice_cost"])
    assert adoption.imitation_key(other, ["env.advice_cost"]) != adoption.imitation_key(donor, ["env.advice_cost"])


def test_a_run_prefers_the_donor_whose_evaluation_it_shares(tmp_path: Path):
    here = f"run.folder={tmp_path}"
    donors = [
        point(here, "run.name=cold", "rollout.temperature=0.5"),
        point(here, "run.name=few", "evaluate.sessions=24"),
        point(here, "run.name=like"),
    ]
    for donor in donors:
        RunFolder.of(donor).sft.path.mkdir(parents=True)
        (RunFolder.of(donor).sft.path / "name").write_text(donor.run.name)
        evaluations.keep(RunFolder.of(donor), "sft_sampled", played("ppo"))
    for name, others in (("a", donors), ("b", donors[:2]), ("c", donors[1::-1])):
        heir = point(here, f"run.name={name}")
        adoption.adopt(heir, others)
        assert (RunFolder.of(heir).sft.path / "name").read_text() == {"a": "like", "b": "cold", "c": "few"}[name]


def test_runs_of_the_toy_are_named_after_mode_price_and_seed():
    assert point().run.name == "toy-linked-0.7-1"
    assert point("credit.mode=none").run.name == "toy-none-0.7-1"


def test_the_toy_sweeps_four_credit_modes_over_three_prices_and_three_seeds():
    path = shipped_configs.find("three_prices", folder=shipped_configs.SWEEPS)
    jobs = sweep_plan.plan(path, sweep_plan.read_plan(path))
    assert len({job.config.run.name for job in jobs}) == 36
    assert len({str(imitation_of(job.config)) for job in jobs}) == 9  # one per seed and price


def test_two_runs_are_compared_on_the_same_questions_by_run_and_over_all_streams(tmp_path: Path):
    def keep(run: str, *, like: str) -> None:
        for entry in paired_runs.ENTRIES:
            evaluations.keep(RunFolder(tmp_path / run), entry, played(like))

    for seed in (0, 1):  # their streams have the same names
        keep(f"a{seed}", like="ppo")
        keep(f"b{seed}", like=("never_ask", "always_ask")[seed])
    pairs = [
        RunPair(group="a", run=RunFolder(tmp_path / f"a{seed}"), baseline=RunFolder(tmp_path / f"b{seed}"))
        for seed in (0, 1)
    ]
    greedy, sampled = paired_runs.compare(pairs)
    # At price 0.3: 4 of 4 right with 2 asks, minus 1 right without asks; then minus 4 right with 4 asks.
    assert [one.mean for one in greedy.by_run] == pytest.approx([1 - 0.15 - 0.25, 0.85 - 0.7])
    assert greedy.pooled.mean == pytest.approx((0.6 + 0.15) / 2)
    assert greedy.over_seeds.mean == pytest.approx((0.6 + 0.15) / 2)
    assert sampled.entry == "ppo_sampled"
