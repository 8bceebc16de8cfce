import ast
import asyncio
from pathlib import Path

import pytest

from agile_ray.agent.expert import Advice
from agile_ray.agent.lane import Lane
from agile_ray.errors import ExpertError
from agile_ray.plugins.secrets import redacted
from tests.fakes.worlds import ASKS, Says, SmallStream, question, rules

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-1234567890abcdef"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", SECRET)


def test_the_value_of_a_secret_variable_becomes_its_name_and_short_values_stay(monkeypatch):
    monkeypatch.setenv("SHORT_TOKEN", "the")
    monkeypatch.setenv("EDITOR", "a long path to it")
    assert redacted(f"the key is {SECRET}, the editor a long path to it") == (
        "the key is $MY_API_KEY, the editor a long path to it"
    )


def test_the_longer_of_two_secrets_is_replaced_first(monkeypatch):
    monkeypatch.setenv("OTHER_TOKEN", f"{SECRET}-more")
    assert redacted(f"{SECRET}-more {SECRET}") == "$OTHER_TOKEN $MY_API_KEY"


class Leaky:
    source, reliability = "leaky", 1.0

    def __init__(self, breaks):
        self.breaks = breaks

    async def advise(self, question, *, key):
        if self.breaks:
            raise ExpertError(f"refused key {SECRET}")
        return Advice(text=f"ask with {SECRET}", answer=SECRET)


@pytest.mark.parametrize("breaks", [True, False])
def test_neither_a_session_nor_its_receipts_hold_a_secret(breaks):
    lane = Lane(SmallStream(question(0, "does it rust ?")), rules(expert=Leaky(breaks)))
    session = asyncio.run(lane.play(Says(*ASKS)))
    assert SECRET not in repr(session)
    assert "$MY_API_KEY" in (session.error or session.receipts[0].answer)


READS_PICKLES = {
    "agile_ray/credit/assign.py",  # the run's own checkpoint
    "agile_ray/record/evaluations.py",  # the run's own evaluation that was stopped
    "rollout/actor.py",  # from its own driver
    "rollout/fleet/lane_files.py",  # the run's own checkpoint
    "rollout/fleet/ray_worker.py",  # from its own actors
}
"""What reads pickles: files of the run's own folder, and messages between the run's own processes."""


def test_only_the_runs_own_folder_and_processes_are_unpickled():
    found = set()
    for package in ("agile_ray", "envs", "rollout", "learner", "launch"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                reads = isinstance(node, ast.Attribute) and node.attr in ("loads", "load")
                if reads and isinstance(node.value, ast.Name) and node.value.id in ("pickle", "cloudpickle"):
                    found.add(str(path.relative_to(ROOT)))
                if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                    found.add(str(path.relative_to(ROOT)))
    assert found == READS_PICKLES
