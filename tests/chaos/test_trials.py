"""What is drawn from a seed, what counts as an answer, what is left behind, and the table."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.processes import Family, Role, role_of
from tests.chaos.runs import answer_problems
from tests.chaos.trials import EARLIEST, LATEST, TITLES, Outcome, Trial, draw, load, save, table

OUTCOME = Outcome(
    trial="kill-0-00",
    role="driver",
    signal="SIGKILL",
    at_s=31.4,
    during="after iteration 2",
    codes=(-9, 0),
    said="",
    seconds=80.0,
    sessions=96,
    total=0.5,
    same_weights=True,
    problems=(),
)


def test_a_seed_gives_the_same_trials_and_more_of_them_keep_the_first() -> None:
    few, many = draw(3, kills=4, stops=2), draw(3, kills=15, stops=3)
    assert few[:4] == many[:4]
    assert few[4:] == many[15:17]
    assert draw(4, kills=15, stops=3) != many
    assert len({trial.name for trial in many}) == 18


def test_every_kind_is_killed_and_every_one_but_the_driver_is_stopped() -> None:
    trials = draw(0, kills=15, stops=3)
    assert {trial.role for trial in trials if trial.signal == "SIGKILL"} == {*Role}
    assert [trial.role for trial in trials if trial.signal == "SIGSTOP"] == [Role.ACTOR, Role.ENGINE, Role.RANK]
    assert all(EARLIEST <= trial.moment <= LATEST for trial in trials)


@pytest.mark.parametrize(
    ("title", "role"),
    [
        ("ray::RolloutActor.collect", Role.ACTOR),
        ("ray::RolloutActor", Role.ACTOR),
        ("ray::LearnerActor.learn", Role.RANK),
        ("VLLM::EngineCore", Role.ENGINE),
        ("ray::IDLE", None),
        ("python -m launch.main train", None),
        ("", None),
    ],
)
def test_processes_are_known_by_their_titles(title: str, role: Role | None) -> None:
    assert role_of(title) is role


def trial(role: Role, sent) -> Trial:
    return Trial(name="x", role=role, signal=sent, moment=0.5)


def answered(one: Trial, code: int, *printed: str, struck: bool = True) -> list[str]:
    return answer_problems(one, code=code, printed=printed, struck=struck)


def test_a_killed_driver_answers_with_its_signal() -> None:
    one = trial(Role.DRIVER, "SIGKILL")
    assert answered(one, -signal.SIGKILL) == []
    assert len(answered(one, 1, "agile-ray: x")) == 1


def test_a_killed_part_is_answered_by_one_line_or_not_at_all() -> None:
    one = trial(Role.RANK, "SIGKILL")
    assert answered(one, 0, "anything") == []
    assert answered(one, 1, "started", "agile-ray: learner.learn: a rank's process died") == []
    assert len(answered(one, 1, "agile-ray: started", "Traceback")) == 1
    assert answered(trial(Role.ACTOR, "SIGKILL"), 0, "actor 1 is replaced: rollout.report: actor 1 died") == []


def test_a_hang_is_answered_by_a_deadline_that_names_itself() -> None:
    one = trial(Role.ENGINE, "SIGSTOP")
    said = "agile-ray: rollout: vLLM's generate took longer than cluster.deadline_s (60 s)"
    assert answered(one, 1, said) == []
    assert len(answered(one, 1, "agile-ray: rollout: vLLM died")) == 1
    replaced = "actor 0 is replaced: rollout: actor 0 must report within 120 s, it did not"
    assert answered(one, 0, replaced, "done") == []
    assert len(answered(one, 0, replaced, "actor 0 is replaced: rollout: vLLM died", "done")) == 1


def test_a_run_that_ended_too_soon_was_not_struck() -> None:
    assert answered(trial(Role.RANK, "SIGKILL"), 0, struck=False) != []


def test_what_is_kept_is_read_again_and_the_tables_hold_all(tmp_path: Path) -> None:
    bad = replace(OUTCOME, trial="stop-0-00", problems=("a | b", "c"))
    save(tmp_path, bad)
    save(tmp_path, OUTCOME)
    assert load(tmp_path) == [OUTCOME, bad]
    assert [one["trial"] for one in json.loads((tmp_path / "table.json").read_text())] == ["kill-0-00", "stop-0-00"]
    text = (tmp_path / "table.md").read_text()
    assert text == table([OUTCOME, bad])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[:4]]
    assert {len(line) for line in lines} == {len(TITLES)}
    assert [line[-1] for line in lines[2:]] == ["as promised", "a / b; c"]
    assert "1 of 2 runs ended as promised." in text


PARENT = """
import subprocess, sys, time
child = subprocess.Popen(["bash", "-c", "exec -a ray::RolloutActor sleep 600"])
lost = subprocess.Popen([sys.executable, "-c", '''
import mmap, os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 4096)
kept = mmap.mmap(file, 4096)
print("ready", flush=True)
time.sleep(600)
''', sys.argv[1]])
time.sleep(600)
"""


def test_what_a_killed_run_leaves_is_found(tmp_path: Path) -> None:
    shared = Path("/dev/shm") / f"agile-ray-test-{time.monotonic_ns()}"  # noqa: S108
    driver = subprocess.Popen([sys.executable, "-c", PARENT, str(shared)], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        family = Family(driver.pid, compiles_in=tmp_path)
        end = time.monotonic() + 100
        while not family.members(Role.ACTOR) and time.monotonic() < end:
            family.look()
        [actor] = family.members(Role.ACTOR)
        assert [one.pid for one in family.members(Role.DRIVER)] == [driver.pid]
        (tmp_path / "op").mkdir()
        (tmp_path / "op" / "lock").touch()
        driver.kill()
        driver.wait(100)
        left = family.left(within_s=0.0)
        assert any(f"process {actor.pid} ray::RolloutActor" in one for one in left)
        assert f"shared memory {shared}" in left
        assert f"compile lock {tmp_path / 'op' / 'lock'}" in left
        family.end()
        shared.unlink()
        (tmp_path / "op" / "lock").unlink()
        assert family.left(within_s=100.0) == []
    finally:
        driver.kill()
        shared.unlink(missing_ok=True)
