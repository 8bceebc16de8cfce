"""The harness on a training that is none: it strikes, runs the command again, examines, and goes on where it was."""

import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.chaos import __main__ as command
from tests.chaos.processes import Family, Role
from tests.chaos.runs import Bench, Undisturbed
from tests.chaos.trials import Outcome, Signal, Trial, load
from tests.integration.conftest import ITERATIONS, LANES, SESSIONS

FAKE = (sys.executable, "-m", "tests.chaos.fake_training")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The undisturbed run of this folder is made by the first test that needs it."""
    folder = tmp_path_factory.mktemp("chaos")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    return Bench(folder, training=FAKE)


def strike(bench: Bench, role: Role, sent: Signal) -> Outcome:
    usual = replace(bench.undisturbed(), ready_s=0.0)
    return bench.play(Trial(name=f"trial-{sent}", role=role, signal=sent, moment=0.0), usual)


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize(("role", "sent"), [(Role.RANK, "SIGKILL"), (Role.ENGINE, "SIGSTOP")])
def test_a_run_that_was_struck_is_run_again_and_is_then_as_promised(bench: Bench, role: Role, sent: Signal) -> None:
    outcome = strike(bench, role, sent)
    assert outcome.problems == ()
    assert outcome.codes == (1, 0)
    assert outcome.said.startswith("agile-ray: ")
    assert (outcome.sessions, outcome.same_weights) == (ITERATIONS * LANES * SESSIONS, True)


@pytest.mark.integration
@pytest.mark.long
def test_what_a_killed_driver_leaves_is_a_problem(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    members = Family.members

    def with_its_parts(family: Family, role: Role) -> list[psutil.Process]:
        return members(family, role) if members(family, Role.RANK) else []

    monkeypatch.setattr(Family, "members", with_its_parts)
    monkeypatch.setattr(Bench, "ends_s", 0.0)
    usual = bench.undisturbed()
    trial = Trial(name="trial-driver", role=Role.DRIVER, signal="SIGKILL", moment=0.0)
    outcome = bench.play(trial, usual)
    assert outcome.codes == (-9, 0)
    assert outcome.problems
    assert all(problem.startswith("after start 1: process") for problem in outcome.problems)


@pytest.mark.integration
@pytest.mark.long
def test_the_undisturbed_run_is_measured_once(bench: Bench) -> None:
    first = bench.undisturbed()
    assert 0 < first.ready_s < first.wall_s
    assert (first.total, first.interval) == (0.5, (0.4, 0.6))
    assert bench.undisturbed() == first


def test_the_same_command_goes_on_with_the_trials_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[str] = []

    def play(self: Bench, trial: Trial, usual: Undisturbed) -> Outcome:
        if len(played) == 1:
            played.append("interrupted")
            raise KeyboardInterrupt
        played.append(trial.name)
        return Outcome(
            trial=trial.name, role=trial.role, signal=trial.signal, at_s=1.0, during="start", codes=(1, 0), said="",
            seconds=2.0, sessions=96, total=0.5, same_weights=True, problems=(),
        )  # fmt: skip

    monkeypatch.setattr(Bench, "play", play)
    monkeypatch.setattr(Bench, "undisturbed", lambda self: Undisturbed(ready_s=1, wall_s=2, total=0, interval=(0, 1)))
    monkeypatch.setattr(sys, "argv", ["chaos", "--folder", str(tmp_path), "--kills", "2", "--stops", "1"])
    with pytest.raises(KeyboardInterrupt):
        command.main()
    assert command.main() == 0
    assert played == ["kill-0-00", "interrupted", "kill-0-01", "stop-0-00"]
    assert [outcome.trial for outcome in load(tmp_path)] == ["kill-0-00", "kill-0-01", "stop-0-00"]
    assert "3 of 3 runs ended as promised" in capsys.readouterr().out
