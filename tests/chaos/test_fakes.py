"""Kills and stops of fake runs, of the kinds that `make chaos` strikes at random; and what their own checks find."""

from pathlib import Path

import pytest

from agile_ray.errors import ContractError
from tests.chaos.fakes.bench import FakeBench, learned_once, paid_once
from tests.chaos.fakes.processes import paid
from tests.chaos.processes import Role
from tests.chaos.runs import NAMES_ITSELF, REPLACED
from tests.chaos.trials import Signal, Trial

STRIKES: list[tuple[Role, Signal, float]] = [
    (Role.DRIVER, "SIGKILL", 0.7),
    (Role.ACTOR, "SIGKILL", 0.25),
    (Role.ENGINE, "SIGKILL", 0.5),
    (Role.RANK, "SIGKILL", 0.6),
    (Role.ACTOR, "SIGSTOP", 0.4),
    (Role.RANK, "SIGSTOP", 0.3),
]
"""What is struck, with what, and when: a share of the run's time."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> FakeBench:
    """With one undisturbed run, which the first test makes."""
    return FakeBench(tmp_path_factory.mktemp("fakes"))


@pytest.mark.parametrize(("role", "sent", "moment"), STRIKES)
def test_a_run_that_is_struck_ends_with_every_session_trained_once(
    bench: FakeBench, role: Role, sent: Signal, moment: float
) -> None:
    trial = Trial(name=f"{sent}-{role.name}".lower(), role=role, signal=sent, moment=moment)
    outcome = bench.play(trial, bench.undisturbed())
    assert outcome.problems == ()
    assert outcome.codes == {Role.DRIVER: (-9, 0), Role.RANK: (1, 0)}.get(role, (0,))
    assert outcome.same_weights
    if role in (Role.ACTOR, Role.ENGINE):
        printed = (bench.folder / "logs" / f"{trial.name}.log").read_text().splitlines()
        [line] = [line for line in printed if REPLACED in line]
        assert bool(NAMES_ITSELF.search(line)) == (sent == "SIGSTOP")


def test_weights_that_learned_a_segment_twice_are_found(bench: FakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.undisturbed()
    run = bench.run("undisturbed")
    learned_once(run)
    run.segment_file(2).rename(run.segment_file(2).with_suffix(".aside"))
    try:
        with pytest.raises(ContractError, match="learned once"):
            learned_once(run)
    finally:
        run.segment_file(2).with_suffix(".aside").rename(run.segment_file(2))


def test_a_payment_without_a_receipt_and_one_too_many_are_found(bench: FakeBench) -> None:
    bench.undisturbed()
    run = bench.run("undisturbed")
    path: Path = paid(run)
    before = path.read_text()
    paid_once(run)
    try:
        for wrong in ("recurring/train/0/0#99#0\n", before):
            path.write_text(before + wrong)
            with pytest.raises(ContractError, match="every payment has its receipt"):
                paid_once(run)
    finally:
        path.write_text(before)
